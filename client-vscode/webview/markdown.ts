/**
 * Markdown of a model, as blocks. A model's words may be a stranger's: what comes out has no
 * script, no style, no image, no address that loads by itself, and links that do nothing by
 * themselves.
 */
import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";

export type Block =
  | { kind: "html"; source: string; html: string }
  | { kind: "code"; source: string; code: string; language: string; isWhole: boolean };

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => anchor(href, escaped(text || href)),
    link({ href, tokens }) {
      return anchor(href, this.parser.parseInline(tokens));
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code: ({ text }) => `<pre><code>${escaped(text)}</code></pre>`,
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    ...["a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6"],
    ...["hr", "i", "li", "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td"],
    ...["th", "thead", "tr", "ul"],
  ],
  ALLOWED_ATTR: ["data-href", "align", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/**
 * The blocks of a text that grows. What is before its last block is read once; the last may
 * become another with the next word.
 */
export class Blocks {
  private source = "";
  private done: Block[] = [];
  private doneLength = 0;
  private tail: Block[] = [];

  of(source: string): Block[] {
    if (source === this.source && source) return [...this.done, ...this.tail];
    if (!source.startsWith(this.source)) {
      this.done = [];
      this.doneLength = 0;
    }
    this.source = source;
    const tokens = marked.lexer(source.slice(this.doneLength));
    const last = tokens.findLastIndex((token) => token.type !== "space");
    for (const token of tokens.slice(0, Math.max(last, 0))) {
      this.done.push(...blockOf(token));
      this.doneLength += token.raw.length;
    }
    this.tail = tokens.slice(Math.max(last, 0)).flatMap(blockOf);
    return [...this.done, ...this.tail];
  }
}

function blockOf(token: Token): Block[] {
  if (token.type === "space") return [];
  if (token.type === "code") {
    const { raw, text, lang } = token as Tokens.Code;
    const language = (lang ?? "").split(/\s/)[0] ?? "";
    return [{ kind: "code", source: raw, code: text, language, isWhole: isClosed(raw) }];
  }
  return [{ kind: "html", source: token.raw, html: sanitized(marked.parser([token])) }];
}

/** Whether a fence has its other end. Indented code has none and is whole as it is. */
function isClosed(raw: string): boolean {
  const fence = /^ {0,3}(`{3,}|~{3,})/.exec(raw)?.[1];
  if (!fence) return true;
  return new RegExp(`\\n {0,3}${fence[0] === "`" ? "`" : "~"}{${fence.length},}\\s*$`).test(raw);
}

export function sanitized(html: string): string {
  return DOMPurify.sanitize(html, ALLOWED);
}

/** No `href`: a link leads nowhere until the click on it was looked at. */
function anchor(href: string, inner: string): string {
  return `<a data-href="${escaped(href)}">${inner}</a>`;
}

export function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

export type LinkTarget =
  | { kind: "web"; url: string }
  | { kind: "file"; path: string; line: number | null }
  | { kind: "inert" };

/** What a link of a model means: a page, a file of the workspace with a line, or nothing. */
export function targetOf(href: string): LinkTarget {
  const text = href.replace(/[\u0000-\u0020\u007f-\u009f\u200b-\u200f\u2028-\u202e\ufeff]/g, "");
  if (/^(https?|mailto):/i.test(text)) return { kind: "web", url: text };
  if (/^[a-z][a-z0-9+.-]*:/i.test(text) && !/^[a-z]:[\\/]/i.test(text) && !/^file:/i.test(text)) {
    return /^[^:/\\]+\.[a-z0-9]+:\d+/i.test(text) ? fileTarget(text) : { kind: "inert" };
  }
  if (!text || text.startsWith("#") || text.startsWith("//") || text.startsWith("\\\\")) {
    return { kind: "inert" };
  }
  return fileTarget(text);
}

function fileTarget(text: string): LinkTarget {
  const found = /^(.*?)(?::(\d+)(?::\d+)?|#L(\d+).*)?$/.exec(text);
  const line = found?.[2] ?? found?.[3];
  return { kind: "file", path: decoded(found?.[1] ?? text), line: line ? Number(line) : null };
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path; // a per cent sign that is one
  }
}
