// @vitest-environment jsdom
import { describe, expect, test } from "vitest";

import { highlighted } from "./highlight";
import { HOSTILE } from "./hostile";
import { Blocks, targetOf, type Block } from "./markdown";

const html = (source: string) =>
  new Blocks().of(source).map((block) => (block.kind === "html" ? block.html : `[${block.language}|${block.code}]`)).join("");

test.each([
  ["**bold** `code`", "<p><strong>bold</strong> <code>code</code></p>\n"],
  ["- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"],
  ["```py\nx = 1\n```", "[py|x = 1]"],
  ["```py\nx = 1", "[py|x = 1]"],
  ["a < b & c", "<p>a &lt; b &amp; c</p>\n"],
  ["<b>raw</b>", "<p>&lt;b&gt;raw&lt;/b&gt;</p>\n"],
  ["[docs](https://a.test/x)", '<p><a data-href="https://a.test/x">docs</a></p>\n'],
  ["![alt](https://a.test/x.png)", '<p><a data-href="https://a.test/x.png">alt</a></p>\n'],
  ["- [x] done", "<ul>\n<li>☑ done</li>\n</ul>\n"],
])("%s", (source, expected) => {
  expect(html(source)).toBe(expected);
});

describe("a text that grows is read the same as one that is whole", () => {
  const text = [
    "# Title", "", "Some **bold** text", "over two lines.", "", "- one", "  - two", "", "1. a", "2. b", "",
    "```ts", "const a = `x`;", "", "```", "", "| a | b |", "|---|---|", "| 1 | 2 |", "", "> quote", "", "Setext", "===", "",
    "    indented", "", "~~~", "```", "~~~", "", "end [a](b.ts:3)", "",
  ].join("\n");
  test.each([1, 2, 3, 7, 50])("in pieces of %i", (size) => {
    const blocks = new Blocks();
    let last: Block[] = [];
    for (let length = size; length < text.length + size; length += size) last = blocks.of(text.slice(0, length));
    expect(last).toEqual(new Blocks().of(text));
  });
});

test("what was finished is not read again", () => {
  const blocks = new Blocks();
  const first = blocks.of("one\n\ntwo\n\nthree")[0];
  expect(blocks.of("one\n\ntwo\n\nthree\n\nfour")[0]).toBe(first);
  expect(blocks.of("another")).toHaveLength(1);
});

test.each([
  ["https://a.test/x", { kind: "web", url: "https://a.test/x" }],
  ["mailto:a@b.test", { kind: "web", url: "mailto:a@b.test" }],
  ["src/a.ts", { kind: "file", path: "src/a.ts", line: null }],
  ["src/a.ts:12", { kind: "file", path: "src/a.ts", line: 12 }],
  ["src/a.ts:12:3", { kind: "file", path: "src/a.ts", line: 12 }],
  ["a.ts:12", { kind: "file", path: "a.ts", line: 12 }],
  ["a.ts#L12", { kind: "file", path: "a.ts", line: 12 }],
  ["a%20b.ts", { kind: "file", path: "a b.ts", line: null }],
  ["100%.ts", { kind: "file", path: "100%.ts", line: null }],
  ["C:\\x\\a.ts:3", { kind: "file", path: "C:\\x\\a.ts", line: 3 }],
  ["file:///x/a.ts", { kind: "file", path: "file:///x/a.ts", line: null }],
  ["#part", { kind: "inert" }],
  ["//evil.test/x", { kind: "inert" }],
  ["command:x", { kind: "inert" }],
  ["java\tscript:x", { kind: "inert" }],
  ["", { kind: "inert" }],
])("a link to %s", (href, target) => {
  expect(targetOf(href)).toEqual(target);
});

const TAGS = new Set(
  "A BLOCKQUOTE BR CODE DEL EM H1 H2 H3 H4 H5 H6 HR LI OL P PRE STRONG TABLE TBODY TD TH THEAD TR UL SPAN DIV".split(" "),
);

test("there are at least 300 hostile texts, each another", () => {
  expect(new Set(HOSTILE).size).toBe(HOSTILE.length);
  expect(HOSTILE.length).toBeGreaterThanOrEqual(300);
});

test.each(HOSTILE)("nothing comes of %j", (source) => {
  const place = document.createElement("div");
  for (const block of new Blocks().of(source)) {
    const part = document.createElement("div");
    part.innerHTML = block.kind === "html" ? block.html : highlighted(block.code, block.language);
    place.append(part);
  }
  for (const element of place.querySelectorAll("*")) {
    expect(TAGS).toContain(element.tagName);
    for (const { name } of element.attributes) expect(["data-href", "align", "start", "class"]).toContain(name);
    for (const name of element.classList) expect(name).toMatch(/^(hljs-|language[-_]|function_|class_)/);
    const href = element.getAttribute("data-href");
    if (href !== null) {
      const target = targetOf(href);
      if (target.kind === "web") expect(target.url).toMatch(/^(https?|mailto):/i);
      if (target.kind === "file") expect(target.path).not.toMatch(/^(javascript|data|command|vscode|vbscript|blob):/i);
    }
  }
  expect((window as { pwned?: number }).pwned).toBeUndefined();
});
