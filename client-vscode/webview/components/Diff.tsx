/** A text, line by line, coloured as a difference if it is one. */
export function Diff({ text, isDiff = true }: { text: string; isDiff?: boolean }) {
  return (
    <pre tabIndex={0}>
      {text.split("\n").map((line, index) => (
        <span key={index} class={isDiff ? styleOf(line) : ""}>
          {line}
          {"\n"}
        </span>
      ))}
    </pre>
  );
}

function styleOf(line: string): string {
  if (/^(\+\+\+|---|@@)/.test(line)) return "meta";
  return { "+": "added", "-": "removed" }[line[0] ?? ""] ?? "";
}
