import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";

import type { Chat } from "./chat";

export const ChatContext = createContext<Chat | null>(null);

/** The chat, whatever of it changes. What is drawn is drawn once a frame, however much came. */
export function useChat(): Chat {
  const chat = useContext(ChatContext);
  if (!chat) throw new Error("There is no chat around this component.");
  const [, draw] = useState(0);
  useEffect(() => {
    let frame = 0;
    const stop = chat.watch(() => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        draw((count) => count + 1);
      });
    });
    return () => {
      stop();
      cancelAnimationFrame(frame);
    };
  }, [chat]);
  return chat;
}
