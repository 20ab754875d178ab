import { useEffect, useRef, useState } from "preact/hooks";

import type { Conversation, SearchHit } from "../../src/protocol";
import { useChat } from "../hooks";
import { conversationActions, RenameField } from "./Header";
import { Menu } from "./Menu";

const PAGE = 100;
const SEARCH_MILLISECONDS = 150;

export function ConversationList({ close }: { close: () => void }) {
  const chat = useChat();
  const [query, setQuery] = useState("");
  const [renaming, rename] = useState<string | null>(null);
  const { conversations, more } = useConversations();
  const hits = useSearch(query);
  const box = useRef<HTMLInputElement>(null);
  useEffect(() => box.current?.focus(), []);
  const deleting = new Set(chat.state?.deleting);
  const wanted = query.trim().toLowerCase();
  const open = (conversationId: string) => {
    chat.open(conversationId);
    close();
  };
  const rows = conversations
    .filter((one) => !deleting.has(one.conversationId))
    .filter((one) => !wanted || titleOf(one).toLowerCase().includes(wanted));
  const active = rows.filter((one) => one.conversationId === chat.conversationId);
  const others = rows.filter((one) => one.conversationId !== chat.conversationId);
  return (
    <section class="list">
      <input
        type="search"
        ref={box}
        aria-label="Search conversations"
        placeholder="Search titles and messages"
        onInput={(event) => setQuery(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "ArrowDown" && step(event, 1)}
      />
      <div role="listbox" aria-label="Conversations" class="rows">
        {[...active, ...others].map((one) => (
          <div
            role="option"
            key={one.conversationId}
            tabIndex={0}
            aria-label={titleOf(one)}
            aria-selected={one.conversationId === chat.conversationId}
            onClick={() => open(one.conversationId)}
            onKeyDown={(event) => {
              if (event.target !== event.currentTarget) return;
              if (event.key === "Enter") open(one.conversationId);
              else if (event.key === "ArrowDown") step(event, 1);
              else if (event.key === "ArrowUp") step(event, -1);
            }}
          >
            {renaming === one.conversationId ? (
              <RenameField
                title={one.title ?? ""}
                conversationId={one.conversationId}
                done={() => rename(null)}
              />
            ) : (
              <span class="words">{titleOf(one)}</span>
            )}
            <span class="about">
              {one.mode !== "chat" && `${one.mode} · `}
              {ago(one.updatedAt)}
              {one.queueLength > 0 && ` · ${one.queueLength} waiting`}
            </span>
            <Menu
              label="More actions"
              items={[
                { label: "Rename", run: () => rename(one.conversationId) },
                ...conversationActions(chat, one.conversationId),
              ]}
            />
          </div>
        ))}
        {rows.length === 0 && <p class="nothing">{wanted ? "No title has these letters." : "No conversations yet."}</p>}
      </div>
      {more && !wanted && (
        <button type="button" class="earlier" onClick={more}>
          Show older conversations
        </button>
      )}
      {hits.length > 0 && (
        <>
          <h2>In messages</h2>
          <ul class="hits" aria-label="Found in messages">
            {hits.map((hit) => (
              <li key={hit.messageId}>
                <button type="button" onClick={() => open(hit.conversationId)}>
                  <strong>{hit.title ?? "Untitled"}</strong>
                  <Snippet text={hit.snippet} />
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

function titleOf(one: Conversation): string {
  return one.title ?? "Untitled";
}

function step(event: KeyboardEvent & { currentTarget: HTMLElement }, by: number): void {
  event.preventDefault();
  const all = [...document.querySelectorAll<HTMLElement>(".rows [role=option]")];
  all[all.indexOf(event.currentTarget) + by]?.focus();
}

/** The newest page of the list, and more when it is asked for; kept true as it changes. */
function useConversations() {
  const chat = useChat();
  const [pages, setPages] = useState(1);
  const [known, know] = useState<{ conversations: Conversation[]; hasMore: boolean }>({
    conversations: [],
    hasMore: false,
  });
  const instance = chat.state?.instance;
  useEffect(() => {
    let isOver = false;
    const load = async () => {
      let conversations: Conversation[] = [];
      let cursor: string | null = null;
      for (let page = 0; page < pages; page += 1) {
        const found = await listPage(cursor);
        conversations = [...conversations, ...found.conversations];
        cursor = found.cursor ?? null;
        if (!cursor) break;
      }
      if (!isOver) know({ conversations, hasMore: cursor !== null });
    };
    const listPage = (cursor: string | null) => chat.request("conversation/list", { cursor, limit: PAGE });
    if (chat.isReady) chat.act(load());
    return () => {
      isOver = true;
    };
  }, [chat.listChange, instance, pages]);
  const more = known.hasMore ? () => setPages(pages + 1) : null;
  return { conversations: known.conversations, more };
}

function useSearch(query: string): SearchHit[] {
  const chat = useChat();
  const [hits, found] = useState<SearchHit[]>([]);
  useEffect(() => {
    const wanted = query.trim();
    if (!wanted) {
      found([]);
      return undefined;
    }
    let isOver = false;
    const timer = setTimeout(
      () =>
        chat.act(
          chat.request("conversation/search", { query: wanted, limit: 20 }).then((answer) => {
            if (!isOver) found(answer.hits);
          }),
        ),
      SEARCH_MILLISECONDS,
    );
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [query]);
  return hits;
}

/** What was found stands between two control characters. */
function Snippet({ text }: { text: string }) {
  return (
    <span class="snippet">
      {text.split(/[\u0002\u0003]/).map((piece, index) => (index % 2 ? <mark key={index}>{piece}</mark> : piece))}
    </span>
  );
}

function ago(time: number): string {
  const minutes = Math.round((Date.now() - time) / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.round(minutes / 60)} h`;
  return new Date(time).toLocaleDateString();
}
