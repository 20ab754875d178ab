/** Colours for code, as HTML that holds nothing but text and spans with a class. */
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import csharp from "highlight.js/lib/languages/csharp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import markdown from "highlight.js/lib/languages/markdown";
import php from "highlight.js/lib/languages/php";
import python from "highlight.js/lib/languages/python";
import ruby from "highlight.js/lib/languages/ruby";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";

import { escaped } from "./markdown";

const languages = {
  ...{ bash, c, cpp, csharp, css, diff, go, java, javascript, json, markdown, php, python, ruby },
  ...{ rust, sql, typescript, xml, yaml },
};
for (const [name, language] of Object.entries(languages)) hljs.registerLanguage(name, language);

/** More than this is data; nobody reads its colours. */
const MOST = 100_000;

export function highlighted(code: string, language: string): string {
  if (code.length > MOST || !hljs.getLanguage(language)) return escaped(code);
  return hljs.highlight(code, { language, ignoreIllegals: true }).value;
}
