/** The document of the chat, by what a person sees of it: roles, names and texts. */

/**
 * @typedef {import("playwright-core").Locator} Locator
 * @typedef {import("playwright-core").Page} Page
 * @typedef {"streaming" | "complete" | "cancelled" | "error" | "interrupted"} Status
 */

export class Chat {
  /** @param {Page} page */
  constructor(page) {
    this.frame = page.frameLocator("iframe.webview.ready").frameLocator("iframe#active-frame");
    this.composer = this.frame.getByRole("textbox", { name: "Message" });
    this.sendButton = this.frame.getByRole("button", { name: "Send" });
    this.stopButton = this.frame.getByRole("button", { name: "Stop" });
    this.transcript = this.frame.getByRole("log", { name: "Transcript" });
    this.messages = this.transcript.locator("article[data-message-id]");
    this.mode = this.frame.getByRole("combobox", { name: "Mode" });
    this.planFirst = this.frame.getByRole("checkbox", { name: "Plan first" });
    this.model = this.frame.getByRole("button", { name: "Model" });
    this.approval = this.frame.getByRole("group", { name: "Approval" });
    this.rewind = this.frame.getByRole("dialog", { name: "Rewind" });
    this.queue = this.frame.getByRole("list", { name: "Queue" });
    this.conversations = this.frame.getByRole("listbox", { name: "Conversations" });
    this.search = this.frame.getByRole("searchbox", { name: "Search conversations" });
    this.status = this.frame.locator("#status");
    this.alert = this.frame.getByRole("alert");
  }

  async isReady() {
    await this.frame.locator('#status[data-kind="ready"]').waitFor({ state: "attached" });
  }

  /** @param {string} text */
  async send(text) {
    await this.composer.fill(text);
    await this.sendButton.click();
    await this.prompt(text).waitFor();
  }

  /**
   * The message of the user that says this.
   * @param {string} text
   */
  prompt(text) {
    return this.messages.and(this.frame.locator('[data-role="user"]')).filter({ hasText: text }).last();
  }

  /**
   * The answers in this state, oldest first.
   * @param {Status} status
   */
  answers(status) {
    return this.messages.and(this.frame.locator(`[data-role="assistant"][data-status="${status}"]`));
  }

  /**
   * Send, and wait for an answer that is complete and says this.
   * @param {string} text
   * @param {string} expected
   */
  async ask(text, expected) {
    await this.send(text);
    await this.answers("complete").filter({ hasText: expected.trim() }).last().waitFor();
  }

  /** @param {string} text */
  async isShown(text) {
    await this.transcript.getByText(text).last().waitFor();
  }

  /**
   * Every message as the reader sees it, oldest first.
   * @returns {Promise<{ role: string, status: string, text: string }[]>}
   */
  async read() {
    return this.messages.evaluateAll((articles) =>
      articles.map((article) => ({
        role: article.getAttribute("data-role") ?? "",
        status: article.getAttribute("data-status") ?? "",
        text: [...article.querySelectorAll(".text")].map((part) => part.textContent ?? "").join("").trim(),
      })),
    );
  }

  /** The text of the last answer. */
  async lastAnswer() {
    const answers = (await this.read()).filter(({ role }) => role === "assistant");
    return answers.at(-1)?.text ?? "";
  }

  async newConversation() {
    await this.frame.getByRole("button", { name: "New conversation" }).first().click();
    await this.messages.first().waitFor({ state: "detached" });
  }

  /** Build mode, in which what is asked is done at once. */
  async buildWithoutPlan() {
    await this.mode.selectOption("build");
    await this.planFirst.uncheck();
  }

  async openConversations() {
    if (await this.conversations.isVisible()) return;
    await this.frame.getByRole("button", { name: "Conversations", exact: true }).click();
    await this.conversations.waitFor();
  }

  /** @param {string} title */
  conversation(title) {
    return this.conversations.getByRole("option", { name: title }).first();
  }

  /**
   * @param {string} title
   * @param {"Rename" | "Fork" | "Export" | "Archive" | "Delete"} action
   */
  async manage(title, action) {
    await this.openConversations();
    const row = this.conversation(title);
    await row.hover();
    await row.getByRole("button", { name: "More actions" }).click();
    await this.frame.getByRole("menuitem", { name: action }).click();
  }

  /** @param {string} text */
  queued(text) {
    return this.queue.getByRole("listitem").filter({ hasText: text });
  }
}
