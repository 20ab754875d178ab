import { render } from "preact";

import { Chat } from "./chat";
import { App } from "./components/App";
import { ChatContext } from "./hooks";
import "./style.css";

const root = document.getElementById("root");
if (!root) throw new Error("The page has no place for the chat.");
const chat = new Chat();
render(
  <ChatContext.Provider value={chat}>
    <App />
  </ChatContext.Provider>,
  root,
);
chat.begin();
