// Lines as a tree of blocks. Pure. CommonMark's blocks and GitHub's tables, with these differences: quotes have no lazy lines,
// an underline needs three characters, HTML is text, and a nested list may be indented by two (models do that).
//
// Only a following line can tell that a block has ended, never a later one: all blocks but the last of whole lines are
// final (see ../markdown.js), whatever comes. Who changes a rule here keeps that; a test cuts texts at every character.

import { inline, node } from "./inline.js";

const FENCE = /^(`{3,}|~{3,})[ \t]*([^]*)$/, HEADING = /^(#{1,6})(?:[ \t]|$)/, RULE = /^([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^>/, MARKER = /^([-*+]|\d{1,9}[.)])(?=[ \t]|$)/, UNDERLINE = /^(={3,}|-{3,})[ \t]*$/;
const DASHES = /^:?-+:?$/, LANGUAGE = /^[^\s{`]{1,40}/;
const DEPTH_MAX = 8, ROW_MAX_CHARACTERS = 5000, CELLS_MAX = 100, CODE_INDENT = 4;

/** @returns {{ start: number, tree: object }[]} blocks, each with the index of the line it begins at */
export function blocks(lines, depth = 0) {
  const out = [];
  for (let at = 0; at < lines.length; ) {
    if (isBlank(lines[at])) at++;
    else {
      const [tree, next] = block(lines, at, depth);
      out.push({ start: at, tree });
      at = next;
    }
  }
  return out;
}

/** The block that begins at a line that is not blank, and the line after it. */
function block(lines, at, depth) {
  const indent = indentOf(lines[at]);
  if (indent >= CODE_INDENT) return indented(lines, at);
  const line = lines[at].trimStart();
  const fence = fenceOf(line);
  if (fence) return fenced(lines, at, indent, fence);
  if (HEADING.test(line)) return [heading(line), at + 1];
  if (RULE.test(line)) return [node("hr", {}, []), at + 1];
  if (depth < DEPTH_MAX && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEPTH_MAX && MARKER.test(line)) return list(lines, at, depth);
  const columns = tableAt(lines, at);
  return columns ? table(lines, at, columns) : paragraph(lines, at, depth);
}

/** Whether a line begins a block even right behind a paragraph's line. */
function interrupts(lines, at, depth) {
  const line = lines[at];
  if (isBlank(line)) return true;
  if (indentOf(line) >= CODE_INDENT) return false;
  const text = line.trimStart();
  if (fenceOf(text) || HEADING.test(text) || RULE.test(text)) return true;
  if (depth < DEPTH_MAX && (QUOTE.test(text) || /^([-*+]|1[.)])[ \t]+\S/.test(text))) return true;
  return Boolean(tableAt(lines, at));
}

function paragraph(lines, at, depth) {
  const text = [];
  for (; at < lines.length; at++) {
    const line = lines[at].trim();
    const underline = text.length && indentOf(lines[at]) < CODE_INDENT && UNDERLINE.exec(line);
    if (underline) return [node(underline[1][0] === "=" ? "h1" : "h2", {}, inline(text.join("\n"))), at + 1];
    if (text.length && interrupts(lines, at, depth)) break;
    text.push(line);
  }
  return [node("p", {}, inline(text.join("\n"))), at];
}

function heading(line) {
  const level = HEADING.exec(line)[1].length;
  const text = line.slice(level).trim();
  let end = text.length;
  while (text[end - 1] === "#") end--;
  const closed = end === 0 || /[ \t]/.test(text[end - 1]);
  return node(`h${level}`, {}, inline(closed ? text.slice(0, end).trimEnd() : text));
}

function quote(lines, at, depth) {
  const inner = [];
  for (; at < lines.length && indentOf(lines[at]) < CODE_INDENT && QUOTE.test(lines[at].trimStart()); at++) {
    inner.push(lines[at].trimStart().replace(/^> ?/, ""));
  }
  return [node("blockquote", {}, blocks(inner, depth + 1).map(({ tree }) => tree)), at];
}

// ---- code ------------------------------------------------------------------------------------------------

function fenceOf(line) {
  const found = FENCE.exec(line);
  return found && !(found[1][0] === "`" && found[2].includes("`")) ? found : null;
}

function fenced(lines, at, indent, [, fence, info]) {
  const text = [];
  for (at++; at < lines.length && !closesFence(lines[at], fence); at++) text.push(dedent(lines[at], indent));
  return [code(text, LANGUAGE.exec(info)?.[0]), at + 1];
}

function closesFence(line, fence) {
  const text = line.trim();
  return text[0] === fence[0] && text.length >= fence.length && indentOf(line) < CODE_INDENT && text === fence[0].repeat(text.length);
}

function indented(lines, at) {
  const text = [];
  for (; at < lines.length && (isBlank(lines[at]) || indentOf(lines[at]) >= CODE_INDENT); at++) text.push(dedent(lines[at], CODE_INDENT));
  while (isBlank(text.at(-1))) text.pop();
  return [code(text), at];
}

function code(text, language = "") {
  const copy = node("button", { type: "button", class: "copy-code" }, ["Copy code"]);
  const content = node("code", {}, text.length ? [text.join("\n")] : []);
  const label = language ? `Code, ${language}` : "Code";
  return node("figure", { class: "code" }, [
    node("figcaption", {}, [node("span", {}, [language || "text"]), copy]),
    node("pre", { tabindex: "0", role: "region", "aria-label": label }, [content]),
  ]);
}

// ---- lists -----------------------------------------------------------------------------------------------

function markerOf(line) {
  const indent = indentOf(line), text = line.trimStart();
  const marker = indent < CODE_INDENT && !RULE.test(text) ? MARKER.exec(text)?.[1] : undefined;
  if (!marker) return undefined;
  const rest = text.slice(marker.length), space = indentOf(rest);
  const gap = isBlank(rest) || space > CODE_INDENT ? 1 : space;
  return { indent, kind: marker.at(-1), number: Number.parseInt(marker, 10), content: indent + marker.length + gap, rest: dedent(rest, gap) };
}

function list(lines, at, depth) {
  const first = markerOf(lines[at]), items = [];
  let loose = false, blank = false, marker = first;
  while (marker?.kind === first.kind) {
    loose ||= blank && items.length > 0;
    const [inner, next, ended] = item(lines, at, marker, depth);
    const kids = blocks(inner, depth + 1);
    loose ||= kids.some(({ start }, index) => index > 0 && isBlank(inner[start - 1]));
    items.push(kids.map(({ tree }) => tree));
    at = next;
    blank = ended;
    marker = at < lines.length ? markerOf(lines[at]) : undefined;
  }
  const ordered = !Number.isNaN(first.number);
  const start = ordered && first.number !== 1 ? { start: String(first.number) } : {};
  return [node(ordered ? "ol" : "ul", start, items.map((kids) => node("li", {}, loose ? checked(kids) : tight(checked(kids))))), at];
}

/** An item's own lines, the line after it, and whether blank lines stand before that. */
function item(lines, at, marker, depth) {
  const inner = [marker.rest];
  let end = at + 1, fence = fenceOf(marker.rest.trimStart())?.[1];
  for (at++; at < lines.length; at++) {
    const line = lines[at], indent = indentOf(line);
    if (isBlank(line)) {
      inner.push("");
      continue;
    }
    const nested = indent >= marker.indent + 2 && MARKER.test(line.trimStart());
    const lazy = !fence && end === at && inner.at(-1) !== "" && !interrupts(lines, at, depth) && !MARKER.test(line.trimStart());
    if (indent < marker.content && !(nested && !fence) && !lazy) break;
    const text = dedent(line, marker.content);
    fence = fence ? (closesFence(text, fence) ? undefined : fence) : fenceOf(text.trimStart())?.[1];
    inner.push(text);
    end = at + 1;
  }
  return [inner.slice(0, inner.length - (at - end)), at, at > end];
}

const tight = (kids) => kids.flatMap((kid) => (kid.tag === "p" ? kid.kids : [kid]));

function checked(kids) {
  const [first, ...others] = kids, text = first?.tag === "p" ? first.kids[0] : undefined;
  const box = typeof text === "string" && /^\[([ xX])\] /.exec(text);
  if (!box) return kids;
  const sign = node("span", { class: "box", role: "img", "aria-label": box[1] === " " ? "to do" : "done" }, [box[1] === " " ? "☐" : "☑"]);
  return [node("p", {}, [sign, text.slice(3), ...first.kids.slice(1)]), ...others];
}

// ---- tables ----------------------------------------------------------------------------------------------

/** The columns' alignments when a table begins here, else nothing. */
function tableAt(lines, at) {
  const head = lines[at], under = lines[at + 1];
  if (under === undefined || !head.includes("|") || !/^[ \t:|-]+$/.test(under) || indentOf(under) >= CODE_INDENT) return undefined;
  const dashes = cells(under);
  if (!dashes.length || dashes.length !== cells(head).length || !dashes.every((cell) => DASHES.test(cell))) return undefined;
  return dashes.map((cell) => (cell.endsWith(":") ? (cell[0] === ":" ? "center" : "end") : cell[0] === ":" ? "start" : ""));
}

function cells(line) {
  if (line.length > ROW_MAX_CHARACTERS) return [];
  const parts = line.trim().replace(/^\|/, "").split(/(?<!\\)\|/);
  if (parts.length > 1 && isBlank(parts.at(-1))) parts.pop();
  return parts.length > CELLS_MAX ? [] : parts.map((part) => part.trim().replaceAll("\\|", "|"));
}

function table(lines, at, columns) {
  const row = (line, tag) => {
    const texts = cells(line);
    return node("tr", {}, columns.map((side, index) => node(tag, side ? { class: side } : {}, inline(texts[index] ?? ""))));
  };
  const head = node("thead", {}, [row(lines[at], "th")]), body = [];
  for (at += 2; at < lines.length && !interrupts(lines, at, 0); at++) body.push(row(lines[at], "td"));
  const rows = node("table", {}, body.length ? [head, node("tbody", {}, body)] : [head]);
  return [node("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, [rows]), at];
}

// ---- columns (a tab reaches to the next multiple of four) -----------------------------------------------------

const isBlank = (line) => /^[ \t]*$/.test(line ?? "x");

function indentOf(line) {
  let column = 0;
  for (let at = 0; at < line.length; at++) {
    if (line[at] === " ") column++;
    else if (line[at] === "\t") column += 4 - (column % 4);
    else break;
  }
  return column;
}

/** The line without so many columns of white space, as far as it has them. */
function dedent(line, columns) {
  let column = 0, at = 0;
  while (column < columns && (line[at] === " " || line[at] === "\t")) column += line[at++] === " " ? 1 : 4 - (column % 4);
  return " ".repeat(Math.max(0, column - columns)) + line.slice(at);
}
