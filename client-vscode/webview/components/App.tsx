import { useState } from "preact/hooks";

import { useChat } from "../hooks";
import { Approvals } from "./Approvals";
import { Composer } from "./Composer";
import { ConversationList } from "./ConversationList";
import { Header } from "./Header";
import { Notices, StatusLine } from "./Notices";
import { Queue } from "./Queue";
import { RewindDialog } from "./Rewind";
import { TranscriptView } from "./TranscriptView";

export function App() {
  const chat = useChat();
  const [isListOpen, openList] = useState(false);
  const close = () => openList(false);
  return (
    <main onKeyDown={(event) => event.key === "Escape" && close()}>
      <Header isListOpen={isListOpen} toggleList={() => openList(!isListOpen)} />
      <StatusLine state={chat.state} />
      {isListOpen ? (
        <ConversationList close={close} />
      ) : (
        <>
          <Notices />
          <TranscriptView key={chat.conversationId ?? ""} />
          <Approvals />
          <Queue />
          <Composer key={`composer ${chat.conversationId ?? ""}`} />
        </>
      )}
      <UndoBar />
      <RewindDialog />
    </main>
  );
}

function UndoBar() {
  const chat = useChat();
  return (
    <>
      {chat.state?.deleting.map((conversationId) => (
        <div class="undo" role="status" key={conversationId}>
          <span>The conversation is deleted.</span>
          <button
            type="button"
            onClick={() => chat.act(chat.request("chat/undoDelete", { conversationId }))}
          >
            Undo
          </button>
        </div>
      ))}
    </>
  );
}
