import { useState } from "preact/hooks";

import { useChat } from "../hooks";
import { newId } from "../ids";
import { IconButton } from "./Icon";
import { Menu } from "./Menu";

export function Header(props: { isListOpen: boolean; toggleList: () => void }) {
  const chat = useChat();
  const [isRenaming, rename] = useState(false);
  const { conversationId } = chat;
  const begin = () => {
    chat.open(null);
    if (props.isListOpen) props.toggleList();
  };
  return (
    <header>
      <IconButton
        icon="list-unordered"
        label="Conversations"
        expanded={props.isListOpen}
        onClick={props.toggleList}
      />
      {isRenaming && conversationId ? (
        <RenameField title={chat.title ?? ""} conversationId={conversationId} done={() => rename(false)} />
      ) : (
        <h1 title={chat.title ?? ""} onDblClick={() => conversationId && rename(true)}>
          {conversationId ? (chat.title ?? "Untitled") : "New conversation"}
        </h1>
      )}
      <IconButton icon="add" label="New conversation" onClick={begin} />
      {conversationId && (
        <Menu
          label="More actions"
          items={[
            { label: "Rename", run: () => rename(true) },
            ...conversationActions(chat, conversationId),
          ]}
        />
      )}
    </header>
  );
}

type Chat = ReturnType<typeof useChat>;

/** What can be done with any conversation, shown or listed. */
export function conversationActions(chat: Chat, conversationId: string) {
  const save = (format: "markdown" | "json") => () =>
    chat.act(chat.request("editor/export", { conversationId, format }));
  return [
    { label: "Fork", run: () => chat.act(fork(chat, conversationId, null)) },
    { label: "Export", run: save("markdown") },
    { label: "Export as JSON", run: save("json") },
    {
      label: "Open in an editor tab",
      run: () => chat.act(chat.request("chat/openInEditor", { conversationId })),
    },
    { label: "Archive", run: () => put(chat, conversationId, archive(chat, conversationId)) },
    {
      label: "Delete",
      run: () => put(chat, conversationId, chat.request("chat/delete", { conversationId })),
    },
  ];
}

export async function fork(chat: Chat, conversationId: string, toMessageId: string | null): Promise<void> {
  const requestKey = newId();
  const made = await chat.request("conversation/fork", { conversationId, toMessageId, requestKey });
  chat.open(made.conversationId);
}

function archive(chat: Chat, conversationId: string): Promise<unknown> {
  return chat.request("conversation/archive", { conversationId, archived: true });
}

/** Away with it; what is shown then is a new one. */
function put(chat: Chat, conversationId: string, away: Promise<unknown>): void {
  chat.act(away);
  if (chat.conversationId === conversationId) chat.open(null);
}

export function RenameField(props: { title: string; conversationId: string; done: () => void }) {
  const chat = useChat();
  const finish = (title: string) => {
    const { conversationId } = props;
    if (title !== props.title) {
      chat.act(chat.request("conversation/rename", { conversationId, title: title.trim() || null }));
    }
    props.done();
  };
  return (
    <input
      class="rename"
      aria-label="Title"
      value={props.title}
      ref={(input) => input?.focus()}
      onClick={(event) => event.stopPropagation()}
      onBlur={(event) => finish(event.currentTarget.value)}
      onKeyDown={(event) => {
        event.stopPropagation();
        if (event.key === "Enter") finish(event.currentTarget.value);
        if (event.key === "Escape") props.done();
      }}
    />
  );
}
