import type { Approval } from "../../src/protocol";
import { explained } from "../../src/shared/rules";
import { useChat } from "../hooks";
import { planOf, type Plan } from "../plan";
import { Diff } from "./Diff";
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
  const { approvalId, contentHash, tool, title, text, always = [] } = approval;
  const plan = tool === "plan" ? planOf(text) : null;
  const answer = (decision: "allow" | "deny", more: { always?: true } = {}) => () =>
    chat.act(chat.request("approval/respond", { approvalId, contentHash, decision, ...more }));
  return (
    <section class="approval" role="group" aria-label="Approval">
      <h2>
        <Icon name="question" /> {title}?
      </h2>
      {approval.isProtected && (
        <p class="protected" title="It governs agents, editors or shells: it is asked about every time.">
          <Icon name="shield" /> Protected file
        </p>
      )}
      {plan ? <PlanView plan={plan} /> : <Diff text={text} isDiff={tool !== "run" && tool !== "plan"} />}
      <p class="buttons">
        <button type="button" class="primary" onClick={answer("allow")}>
          {plan ? "Accept the plan" : "Allow once"}
        </button>
        {always.length > 0 && (
          <button type="button" title={explained(always)} onClick={answer("allow", { always: true })}>
            Always allow in this workspace
          </button>
        )}
        <button type="button" onClick={answer("deny")}>
          {plan ? "Decline" : "Deny"}
        </button>
      </p>
    </section>
  );
}

function PlanView({ plan: { summary, steps, verify } }: { plan: Plan }) {
  return (
    <div class="plan">
      {summary && <p class="words-all">{summary}</p>}
      <ol>
        {steps.map((step, index) => (
          <li key={index} class="words-all">
            {step}
          </li>
        ))}
      </ol>
      {verify !== null && (
        <p>
          Verify with: <code class="words-all">{verify}</code>
        </p>
      )}
    </div>
  );
}
