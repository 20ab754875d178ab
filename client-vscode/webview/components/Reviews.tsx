import type { Finding, Review } from "../../src/protocol";
import { useChat } from "../hooks";

/** The places that reviewers named, to go to; the report itself is the text beside it. */
export function Reviews({ reviews }: { reviews: Review[] }) {
  const findings = reviews.flatMap(({ name, findings = [] }) => findings.map((finding) => ({ name, finding })));
  const placed = findings.filter(({ finding }) => finding.path);
  if (placed.length === 0) return null;
  return (
    <details class="reviews">
      <summary>{placed.length === 1 ? "1 place to look at" : `${placed.length} places to look at`}</summary>
      <ul aria-label="Places to look at">
        {placed.map(({ name, finding }, index) => (
          <li key={index}>
            <Place finding={finding} /> {finding.message} <span class="why">{name}</span>
          </li>
        ))}
      </ul>
    </details>
  );
}

function Place({ finding: { path, line, severity } }: { finding: Finding }) {
  const chat = useChat();
  if (!path) return null;
  return (
    <button
      type="button"
      class="link"
      title={severity}
      onClick={() => chat.act(chat.request("editor/open", { path, line: line ?? null }))}
    >
      {path}
      {line ? `:${line}` : ""}
    </button>
  );
}
