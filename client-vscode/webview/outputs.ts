/** What running tools put out, as it comes: the last lines of each, until its result is there. */
const LINES = 12;
const CHARACTERS = 4_000;

export class Outputs {
  private readonly texts = new Map<string, string>();

  of(toolCallId: string): string | undefined {
    return this.texts.get(toolCallId);
  }

  add(toolCallId: string, text: string): void {
    this.texts.set(toolCallId, tail((this.texts.get(toolCallId) ?? "") + text));
  }

  end(toolCallId: string): void {
    this.texts.delete(toolCallId);
  }

  clear(): void {
    this.texts.clear();
  }
}

/** The last lines. What a program draws over with a carriage return is not seen any more. */
export function tail(text: string): string {
  const lines = text.slice(-CHARACTERS).replace(/\r\n/g, "\n").split("\n");
  const isEnded = lines.at(-1) === "";
  return lines
    .slice(-(isEnded ? LINES + 1 : LINES))
    .map((line) => (line.endsWith("\r") ? line : line.slice(line.lastIndexOf("\r") + 1)))
    .join("\n");
}
