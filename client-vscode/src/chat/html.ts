/** The page of the chat: nothing in it but its own script, style and icons. */
import { randomBytes } from "node:crypto";

export interface Sources {
  script: string;
  style: string;
  icons: string;
  /** Where a webview's own files may come from. */
  cspSource: string;
}

export function page(sources: Sources, nonce = randomBytes(16).toString("base64")): string {
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src ${sources.cspSource}`,
    `img-src ${sources.cspSource} data:`,
    `font-src ${sources.cspSource}`,
    "form-action 'none'",
    "base-uri 'none'",
  ].join("; ");
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="${sources.icons}">
<link rel="stylesheet" href="${sources.style}">
<title>Chat</title>
</head>
<body><div id="root"></div><script nonce="${nonce}" src="${sources.script}"></script></body>
</html>`;
}
