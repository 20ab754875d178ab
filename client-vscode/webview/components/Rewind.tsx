import { useEffect, useRef } from "preact/hooks";

import type { UndoneFile } from "../../src/protocol";
import { useChat } from "../hooks";
import { fate, type Rewinding } from "../rewinding";
import { Diff } from "./Diff";
import { Icon } from "./Icon";

/** What going back would do, file by file, before any of it is done. */
export function RewindDialog() {
  const { rewinding } = useChat();
  return rewinding && <Dialog rewinding={rewinding} />;
}

function Dialog({ rewinding }: { rewinding: Rewinding }) {
  const chat = useChat();
  const root = useRef<HTMLElement>(null);
  const { seen, problem, isBusy, files, hindered, hasFiles } = rewinding;
  const close = () => chat.leaveRewinding();
  const rewind = (wish: { files: boolean; force: boolean }) => () => void rewinding.rewind(wish);
  const hasConflict = hindered.length > 0;
  // A button that goes takes the focus along.
  useEffect(() => {
    if (!root.current?.contains(document.activeElement)) root.current?.focus();
  });
  return (
    <div class="veil">
      <section
        ref={root}
        role="dialog"
        aria-modal="true"
        aria-label="Rewind"
        tabIndex={-1}
        onKeyDown={(event) => {
          if (event.key === "Escape") close();
          if (event.key === "Tab") keepWithin(root.current, event);
        }}
      >
        <h2>
          <Icon name="discard" /> Rewind to here
        </h2>
        {problem && (
          <p class="notice error" role="alert">
            <Icon name="error" /> {problem}
          </p>
        )}
        {seen && <p>{counted(seen.hidden.length, rewinding.text !== null)}</p>}
        {!seen && isBusy && <p class="waiting">Looking at what changed …</p>}
        {seen && files.length === 0 && <p class="why">The agent changed no files in them.</p>}
        {files.length > 0 && (
          <ul aria-label="Changed files">
            {files.map((file) => (
              <FileRow key={`${file.root} ${file.path}`} file={file} />
            ))}
          </ul>
        )}
        {seen && (
          <p class="buttons">
            {hasFiles && !hasConflict && (
              <button type="button" class="primary" disabled={isBusy} onClick={rewind({ files: true, force: false })}>
                Rewind conversation and files
              </button>
            )}
            <button
              type="button"
              class={hasFiles ? "" : "primary"}
              disabled={isBusy || seen.hidden.length === 0}
              onClick={rewind({ files: false, force: false })}
            >
              Rewind conversation only
            </button>
            {hasConflict && (
              <button
                type="button"
                disabled={isBusy}
                title="Also files that somebody has changed since; those changes are lost."
                onClick={rewind({ files: true, force: true })}
              >
                Rewind anyway
              </button>
            )}
            <button type="button" onClick={close}>
              Cancel
            </button>
          </p>
        )}
        {!seen && (
          <p class="buttons">
            <button type="button" onClick={close}>
              Cancel
            </button>
          </p>
        )}
      </section>
    </div>
  );
}

function FileRow({ file }: { file: UndoneFile }) {
  const { path, state, diff } = file;
  const isHindered = state === "conflict" || state === "failed";
  const words = (
    <>
      <Icon name={isHindered ? "warning" : state === "same" ? "check" : "file"} /> <strong>{path}</strong> {fate(file)}
    </>
  );
  return (
    <li data-state={state} class={isHindered ? "hindered" : ""}>
      {diff ? (
        <details>
          <summary>{words}</summary>
          <Diff text={diff} />
        </details>
      ) : (
        <p>{words}</p>
      )}
    </li>
  );
}

function counted(count: number, isPrompt: boolean): string {
  if (count === 0) return "No message comes after it.";
  const messages = count === 1 ? "1 message" : `${count} messages`;
  return isPrompt ? `${messages}, from this one on, will be taken back.` : `${messages} after it will be taken back.`;
}

/** The focus stays in the dialog as long as it is open. */
function keepWithin(root: HTMLElement | null, event: KeyboardEvent): void {
  const all = [...(root?.querySelectorAll<HTMLElement>("button:not(:disabled), summary, pre[tabindex]") ?? [])].filter(
    (one) => one.checkVisibility(),
  );
  const [first, last] = [all[0], all.at(-1)];
  const active = document.activeElement;
  const goal = event.shiftKey ? (active === first || active === root ? last : null) : active === last ? first : null;
  if (!goal) return;
  event.preventDefault();
  goal.focus();
}
