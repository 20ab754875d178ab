"""What the offline provider says about itself, and how it knows that it is asked."""

from __future__ import annotations

NO_MODEL = (
    "_No model is connected, so these are passages of your files, found by their words. To"
    " connect one, set `provider` and its key, or `GEMINI_API_KEY`: “how do I connect a model?”._"
)
HELP = """\
I am the offline assistant: no model is connected, so I do not understand what you write. I look
for its words in your workspace and quote the passages that fit best, with `path:line`.

- Ask for something by its name: `where is the retry policy?`, `which function parses the header?`
- Read a file or some of its lines: `read README.md`, `src/app.py:10-40`
- See what is there: `list`, `list src`
- Go on: `more` shows the next passages of your last question
- Use a tool: `/read`, `/search`, and in the mode `build`: `/edit`, `/write`, `/run`; typed alone,
  each says how
- About this program: `status`, `commands`, `how do I connect a model?`

With a model connected, the same conversations go on with real answers."""
CONNECT = """\
To connect a model:

1. Install the libraries once: `pip install 'agent-sidecar[llm]'`.
2. In your editor, choose the `provider` in the settings and store its key; in a terminal, set the
   variable before you start `agent-sidecar chat`.
3. Ask again. This conversation goes on with the model.

| `provider` | key | variable |
| --- | --- | --- |
| `gemini` | `geminiApiKey` | `GEMINI_API_KEY` |
| `anthropic` | `anthropicApiKey` | `ANTHROPIC_API_KEY` |
| `openai` | `openaiApiKey` | `OPENAI_API_KEY` |
| `bedrock` | `awsAccessKey`, `awsSecretKey`, or `awsUseProfile` | `AWS_ACCESS_KEY_ID`, … |

A local server (Ollama, llama.cpp, vLLM) needs no key: `provider` = `openai` and `openaiBaseUrl` =
its address, for example `http://127.0.0.1:11434/v1`. `agent-sidecar doctor` says what is missing.
Keys stay in memory: never write one into this chat, which is stored."""
COMMANDS = """\
Here I know `help`, `status`, `list [folder]`, `read file[:from-to]`, `more`, questions, and
`/read`, `/search`, `/edit`, `/write`, `/run`.

In a terminal:

| command | what it does |
| --- | --- |
| `agent-sidecar chat` | talk to an agent about the folder you are in |
| `agent-sidecar run "prompt"` | one turn, for scripts |
| `agent-sidecar conversations …` | list, show, search, export, import, delete |
| `agent-sidecar audit verify`, `show` | what agents did and were kept from doing |
| `agent-sidecar doctor` | what is configured and what is missing |
| `agent-sidecar serve`, `acp` | what an editor spawns |
| `agent-sidecar schema` | the interface as an OpenRPC document |"""
GREETING = (
    "Hello! No model is connected yet, so I cannot talk, but I can find things in your workspace"
    " and quote them. Ask me where something is, or say `help`."
)
NO_FOLDER = (
    "I have no folder to look into. Open one in your editor, or start `agent-sidecar chat` in one,"
    " and ask again; `help` says what I can do. No model is connected: ask “how do I connect a"
    " model?” for the steps."
)
OFFLINE = "I am the offline assistant: no model is connected."
STEPS = "Ask “how do I connect a model?” for the steps."
NOTHING_FOUND = (
    "I found nothing in the workspace. Try a word that is in the code itself: the name of a"
    " function, a class or a file, or a piece of an error message."
)
ALL_SHOWN = "That was all I found; a new question may find more."

# What is asked, told by its wording. Matched against the whole prompt in lower case, without
# punctuation, and only when it is short: a longer one is about the user's code.
LONGEST_TALK = 12
_MODEL = (
    r"(?:(?:gemini |openai |anthropic |aws )?(?:api )?keys?|model|llm|ai|provider|gemini|bedrock"
    r"|claude|anthropic|openai|ollama)(?: here| to you| for you| please)?"
)
_CONNECT = (
    r"(?:connect|configure|set|set up|setup|add|use|choose|select|switch|enter|store|put|change"
    r"|enable|get)(?: (?:to|a|an|the|my|your|another|own|real))* " + _MODEL
)
_WANTING = (
    r"(?:how (?:do|can|could|should|would) (?:i|we|you)|how to|(?:can|could) (?:i|we|you)"
    r"|where (?:do|can|should) i|i (?:want|would like|d like) to|let me|please) "
)
TALK: tuple[tuple[str, str], ...] = (
    (r"(?:hi|hiya|hello|hey|howdy|good (?:morning|afternoon|evening|day))(?: \w+){0,2}", GREETING),
    (
        r"(?:many )?(?:thanks|thank you|thx|cheers|great|nice|cool|perfect|ok|okay)(?: \w+){0,3}",
        "You are welcome.",
    ),
    (r"bye|goodbye|see you(?: \w+)?|quit|exit", "Goodbye. This conversation is kept."),
    (
        r"help(?: me)?(?: please)?|what can (?:you|i) (?:do|ask)(?: \w+){0,3}|how can you help.*"
        r"|(?:who|what) are you|how do you work|how do i use (?:you|this)",
        HELP,
    ),
    (
        r"commands?|(?:list|show)(?: \w+){0,2} commands|(?:which|what) commands(?: \w+){0,5}",
        COMMANDS,
    ),
    (f"(?:{_WANTING})?{_CONNECT}", CONNECT),
)
STATUS = (
    r"status|(?:what is|what s|show)(?: me)? (?:your|the)(?: current)? status|how are you(?: \w+)?"
    r"|are you (?:ok|there|online|offline|connected|working|ready)"
    r"|(?:which|what) (?:model|provider)"
    r"(?: is (?:this|connected|used|set)| are you(?: using)?| do you use)?"
    r"|is (?:a|any|the) model (?:connected|configured)|(?:do you have|is there) a model"
)
MORE = (
    r"(?:(?:show|give|tell)(?: me)? )?(?:(?:some|any|the) )?(?:more|next|others?|another|continue"
    r"|go on|(?:what|anything) else)(?: (?:please|results?|passages?|matches|ones?|of \w+))*"
)
