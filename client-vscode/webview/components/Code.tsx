import { useMemo } from "preact/hooks";

import { useChat } from "../hooks";
import { highlighted } from "../highlight";
import { escaped } from "../markdown";
import { IconButton } from "./Icon";

/** A block of code. Its colours come when it is whole: a growing one would be coloured over and over. */
export function Code(props: { code: string; language: string; isWhole: boolean }) {
  const chat = useChat();
  const { code, language, isWhole } = props;
  const html = useMemo(() => (isWhole ? highlighted(code, language) : escaped(code)), [code, language, isWhole]);
  const path = /[./]/.test(language) && !/\s/.test(language) ? language : null;
  return (
    <figure class="code">
      <figcaption>
        <span>{language || "text"}</span>
        <IconButton icon="copy" label="Copy" onClick={() => chat.act(chat.request("editor/copy", { text: code }))} />
        <IconButton
          icon="insert"
          label="Insert at cursor"
          onClick={() => chat.act(chat.request("editor/insert", { text: code }))}
        />
        <IconButton
          icon="git-compare"
          label="Apply"
          onClick={() => chat.act(chat.request("editor/apply", { text: code, path }))}
        />
      </figcaption>
      <pre tabIndex={0}>
        <code dangerouslySetInnerHTML={{ __html: html }} />
      </pre>
    </figure>
  );
}
