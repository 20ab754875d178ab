import { useLayoutEffect, useRef } from "preact/hooks";

import { useChat } from "../hooks";

/** How far a turn of many steps is; nothing where none runs. */
export function ProgressLine() {
  const chat = useChat();
  const step = chat.conversationId ? chat.state?.progress[chat.conversationId] : undefined;
  if (!step) return null;
  const { done, total, label } = step;
  return (
    <div class="progress" role="status" aria-label="Progress">
      <progress value={done} max={Math.max(total, 1)} aria-label={label} />
      <span class="words" title={label}>
        {done}/{total} {label}
      </span>
    </div>
  );
}

/** The last lines of what a running tool puts out. */
export function LiveOutput({ toolCallId }: { toolCallId: string }) {
  const text = useChat().outputs.of(toolCallId);
  const box = useRef<HTMLPreElement>(null);
  useLayoutEffect(() => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  return text ? (
    <pre class="live" ref={box} aria-label="Output so far" tabIndex={0}>
      {text}
    </pre>
  ) : null;
}
