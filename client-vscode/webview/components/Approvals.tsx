import type { Approval } from "../../src/protocol";
import { useChat } from "../hooks";
import { Icon } from "./Icon";

/** What an agent asks for: exactly what will be done, and yes or no. */
export function Approvals() {
  const chat = useChat();
  const open = chat.state?.approvals.filter((one) => one.conversationId === chat.conversationId) ?? [];
  const elsewhere = (chat.state?.approvals.length ?? 0) - open.length;
  return (
    <>
      {open.map((approval) => (
        <Card key={approval.approvalId} approval={approval} />
      ))}
      {elsewhere > 0 && (
        <p class="elsewhere">
          <Icon name="bell-dot" /> {elsewhere === 1 ? "A question waits" : `${elsewhere} questions wait`} in another
          conversation.{" "}
          <button
            type="button"
            class="link"
            onClick={() => {
              const next = chat.state?.approvals.find((one) => one.conversationId !== chat.conversationId);
              if (next) chat.open(next.conversationId);
            }}
          >
            Show
          </button>
        </p>
      )}
    </>
  );
}

function Card({ approval }: { approval: Approval }) {
  const chat = useChat();
  const { approvalId, contentHash } = approval;
  const answer = (decision: "allow" | "deny") => () =>
    chat.act(chat.request("approval/respond", { approvalId, contentHash, decision }));
  return (
    <section class="approval" role="group" aria-label="Approval">
      <h2>
        <Icon name="question" /> {approval.title}?
      </h2>
      <pre>
        {approval.text.split("\n").map((line, index) => (
          <span key={index} class={styleOf(line, approval.tool)}>
            {line}
            {"\n"}
          </span>
        ))}
      </pre>
      <p class="buttons">
        <button type="button" class="primary" onClick={answer("allow")}>
          Allow once
        </button>
        <button type="button" onClick={answer("deny")}>
          Deny
        </button>
      </p>
    </section>
  );
}

/** As a difference is coloured; a command has no such lines. */
function styleOf(line: string, tool: string): string {
  if (tool === "run") return "";
  if (/^(\+\+\+|---|@@)/.test(line)) return "meta";
  return { "+": "added", "-": "removed" }[line[0] ?? ""] ?? "";
}
