#!/bin/sh
# A conversation of two turns from a shell. Options (--store, --provider …) are passed on.
set -eu

field() { # the value of a text field of the JSON object on stdin
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

first=$(agent-sidecar run --json "$@" "Where is the client that spawns a sidecar?" | tail -n 1)
conversation=$(printf '%s' "$first" | field conversationId)
printf '%s' "$first" | field text

agent-sidecar run "$@" --conversation "$conversation" "more"
