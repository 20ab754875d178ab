import type { State } from "../../src/shared/messages";
import { useChat } from "../hooks";
import { Icon } from "./Icon";

export function StatusLine({ state }: { state: State | null }) {
  const connection = state?.connection ?? { kind: "starting", detail: "Connecting …" };
  return (
    <div id="status" role="status" data-kind={connection.kind} class={connection.kind}>
      {connection.kind === "starting" && connection.detail}
    </div>
  );
}

const ACTIONS = {
  restart: { label: "Try again", method: "sidecar/restart" },
  pickInterpreter: { label: "Choose Python", method: "sidecar/pickInterpreter" },
  showLog: { label: "Show log", method: "sidecar/showLog" },
} as const;

/** What stands in the way, each with what to do about it. */
export function Notices() {
  const chat = useChat();
  const { state, failure } = chat;
  if (!state) return null;
  const { connection } = state;
  return (
    <div class="notices">
      {connection.kind === "failed" && (
        <section class="notice error" role="alert">
          <p>
            <Icon name="error" /> {connection.title}
          </p>
          <pre>{connection.detail}</pre>
          <p class="buttons">
            {connection.actions.map((action) => (
              <button
                type="button"
                key={action}
                onClick={() => chat.act(chat.request(ACTIONS[action].method, {}))}
              >
                {ACTIONS[action].label}
              </button>
            ))}
          </p>
        </section>
      )}
      {state.degraded && <Note icon="warning" text={state.degraded} />}
      {!state.trusted && (
        <Note
          icon="shield"
          text="This workspace is not trusted: agents do not look into its files, and its settings do not count."
        />
      )}
      {state.problems.map((problem) => (
        <Note key={problem.field} icon="warning" text={`${problem.message} ${problem.hint}`}>
          <ProblemButtons field={problem.field} />
        </Note>
      ))}
      {failure && (
        <section class="notice error" role="alert">
          <p>
            <Icon name="error" /> {failure.message} {failure.hint}
          </p>
          <p class="buttons">
            <InstallButton hint={failure.hint} />
            {failure.messageId && <RetryButton messageId={failure.messageId} />}
            <button type="button" onClick={() => chat.dismiss()}>
              Dismiss
            </button>
          </p>
        </section>
      )}
    </div>
  );
}

function Note(props: { icon: string; text: string; children?: preact.ComponentChildren }) {
  return (
    <section class="notice">
      <p>
        <Icon name={props.icon} /> {props.text}
      </p>
      {props.children}
    </section>
  );
}

function ProblemButtons({ field }: { field: string }) {
  const chat = useChat();
  const isKey = /key|token/i.test(field);
  return (
    <p class="buttons">
      {isKey && (
        <button type="button" onClick={() => chat.act(chat.request("keys/set", { secret: field }))}>
          Set API key
        </button>
      )}
      <button type="button" onClick={() => chat.act(chat.request("model/pick", {}))}>
        Choose a model
      </button>
      <button type="button" onClick={() => chat.act(chat.request("settings/open", {}))}>
        Open settings
      </button>
    </p>
  );
}

/** Offered where what is missing can be installed. */
export function InstallButton({ hint }: { hint: string | null | undefined }) {
  const chat = useChat();
  return hint?.includes("agent-sidecar[llm]") ? (
    <button type="button" onClick={() => chat.act(chat.request("models/install", {}))}>
      Install them
    </button>
  ) : null;
}

export function RetryButton({ messageId }: { messageId: string }) {
  const chat = useChat();
  const retry = () => {
    chat.dismiss();
    chat.act(chat.request("message/retry", { messageId }));
  };
  return (
    <button type="button" onClick={retry}>
      Try again
    </button>
  );
}

/** What is seen before the first word. */
export function Welcome() {
  const chat = useChat();
  const { state } = chat;
  const isOffline = state?.settings?.provider === "offline";
  return (
    <section class="welcome">
      <h2>Ask about this workspace</h2>
      {isOffline ? (
        <p>
          No account is needed: without a model, questions are answered with the passages of your files
          that fit best. Connect a model for more.
        </p>
      ) : (
        <p>Answers come from {state?.model || "your model"}. Conversations survive reloads, crashes and windows.</p>
      )}
      <p class="buttons">
        <button type="button" onClick={() => chat.act(chat.request("model/pick", {}))}>
          Choose a model
        </button>
        <button type="button" onClick={() => chat.act(chat.request("keys/set", {}))}>
          Set API key
        </button>
      </p>
      <ul>
        <li>
          <kbd>@</kbd> adds a file, or drop one here
        </li>
        <li>
          <kbd>Shift</kbd>+<kbd>Enter</kbd> begins a new line
        </li>
        <li>In build mode the agent changes files, after you have seen the change</li>
      </ul>
    </section>
  );
}
