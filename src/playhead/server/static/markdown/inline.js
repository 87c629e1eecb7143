// Text within a block, as a tree: emphasis, code, links. Pure, and linear in the length of the text.
//
// The rules are CommonMark's (0.31, section 6), with these differences: line ends stay as they are, HTML and entities are
// text, an image is a link to it, ~~ strikes out, bare http(s) addresses are links, only http, https and mailto are linked.
//
// A tree is text or { tag, attributes, kids }. What is pushed to `items` first is text, nodes, and delimiter runs
// ({ run, count, opens, closes }), which `nest` turns into emphasis or text.

const TOKENS = /\\|`+|\*+|_+|~~|!?\[|\]|<|https?:\/\//g;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const SPACE = /^\s$/u, PUNCTUATION = /^[\p{P}\p{S}]$/u, WORD = /^[\p{L}\p{N}_]$/u;
const ANGLED = /<([a-z][a-z0-9+.-]{1,31}:[^\s<>]{1,2000}|[^\s<>@"'(),:;]{1,200}@[a-z0-9.-]{1,200})>/iy;
const BARE = /https?:\/\/[^\s<>"`\[\]\\^{|}]{1,2000}/y;
const TITLE = /\s{1,9}(?:"[^"]{0,500}"|'[^']{0,500}'|\([^()]{0,500}\))/y;
const ALLOWED = new Set(["http:", "https:", "mailto:"]);
const TARGET_MAX_CHARACTERS = 2000, PARENTHESES_MAX = 32, HEIGHT_MAX = 12;

/** @returns {Array} the children that stand for the text */
export function inline(text) {
  const items = [], brackets = [], unclosed = new Map();
  let at = 0;

  function plain(end) {
    if (end > at) items.push(text.slice(at, end));
    at = end;
  }

  function take(node, end) {
    items.push(node);
    at = end;
  }

  const tokens = new RegExp(TOKENS);
  for (let found; (found = tokens.exec(text)); tokens.lastIndex = at) {
    const [token] = found, start = found.index, end = start + token.length;
    plain(start);
    if (token === "\\") escape(end);
    else if (token[0] === "`") code(token, end);
    else if (token === "~~" || token[0] === "*" || token[0] === "_") take(delimiters(text, token, start, end), end);
    else if (token === "]") close(end);
    else if (token === "<") angled(start, end);
    else if (token[0] === "h") bare(start, end);
    else {
      brackets.push({ index: items.length, image: token[0] === "!" });
      take(token, end);
    }
  }
  plain(text.length);
  return nest(items);

  function escape(end) {
    if (ESCAPABLE.test(text.charAt(end))) take(text[end], end + 1);
    else take("\\", end);
  }

  function code(fence, end) {
    // Remembered per length: a search that found no end is not made again.
    if (!(unclosed.get(fence.length) <= end)) {
      const run = /`+/g;
      run.lastIndex = end;
      for (let other; (other = run.exec(text)); ) {
        if (other[0].length !== fence.length) continue;
        let inner = text.slice(end, other.index).replaceAll("\n", " ");
        if (inner.startsWith(" ") && inner.endsWith(" ") && inner.trim()) inner = inner.slice(1, -1);
        return take(node("code", {}, [inner]), run.lastIndex);
      }
      unclosed.set(fence.length, end);
    }
    take(fence, end);
  }

  function angled(start, end) {
    ANGLED.lastIndex = start;
    const [all, address] = ANGLED.exec(text) ?? [];
    const href = address && safe(/^[a-z][a-z0-9+.-]*:/i.test(address) ? address : `mailto:${address}`);
    if (href) take(link(href, [address]), start + all.length);
    else take("<", end);
  }

  function bare(start, end) {
    BARE.lastIndex = start;
    const address = WORD.test(text.charAt(start - 1)) ? "" : trimmed(BARE.exec(text)?.[0] ?? "");
    const href = address && safe(address);
    if (href) take(link(href, [address]), start + address.length);
    else take(text.slice(start, end), end);
  }

  function close(end) {
    const bracket = brackets.pop();
    const target = bracket && !bracket.dead && targetAt(text, end);
    if (!target) return take("]", end);
    const kids = unlinked(nest(items.splice(bracket.index).slice(1)));
    if (!bracket.image) for (const outer of brackets) outer.dead ||= !outer.image; // no links in links
    take(link(target.href, bracket.image && !kids.length ? [target.href] : kids), target.end);
  }
}

export const node = (tag, attributes, kids) => ({ tag, attributes, kids });

const link = (href, kids) => node("a", { href, rel: "noopener noreferrer", target: "_blank" }, kids);

/** The address when it is one that may be linked, else nothing. */
export function safe(address) {
  try {
    const url = new URL(address);
    return ALLOWED.has(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}

/** `(address "title")` from here, as { href, end }. */
function targetAt(text, start) {
  if (text[start] !== "(") return undefined;
  let at = start + 1, address;
  const limit = Math.min(text.length, at + TARGET_MAX_CHARACTERS);
  if (text[at] === "<") {
    const end = text.slice(at, limit).search(/[>\n]/);
    if (end < 0) return undefined;
    address = text.slice(at + 1, at + end);
    at += end + 1;
  } else {
    let open = 0;
    const begin = at;
    for (; at < limit && !SPACE.test(text[at]); at++) {
      if (text[at] === "(" && ++open > PARENTHESES_MAX) return undefined;
      if (text[at] === ")" && --open < 0) break;
    }
    address = text.slice(begin, at);
  }
  TITLE.lastIndex = at;
  at += TITLE.exec(text)?.[0].length ?? 0;
  const href = text[at] === ")" ? safe(address.replace(/\\([!-/:-@[-`{-~])/g, "$1")) : undefined;
  return href && { href, end: at + 1 };
}

/** An address in running text, without what the sentence around it has put behind it. */
function trimmed(address) {
  let end = address.length, open = 0;
  for (const character of address) open += character === "(" ? 1 : character === ")" ? -1 : 0;
  for (; end > 0; end--) {
    const last = address[end - 1];
    if (last === ")" && open < 0) open++;
    else if (!"?!.,:;*_~'…".includes(last)) break;
  }
  return address.slice(0, end);
}

function unlinked(kids) {
  return kids.flatMap((kid) => {
    if (typeof kid === "string") return [kid];
    return kid.tag === "a" ? unlinked(kid.kids) : [{ ...kid, kids: unlinked(kid.kids) }];
  });
}

// ---- emphasis (CommonMark 6.2: left-flanking opens, right-flanking closes) -----------------------------------

function delimiters(text, run, start, end) {
  const before = lastOf(text, start), after = firstOf(text, end);
  const spaceBefore = !before || SPACE.test(before), spaceAfter = !after || SPACE.test(after);
  const markBefore = PUNCTUATION.test(before), markAfter = PUNCTUATION.test(after);
  const left = !spaceAfter && (!markAfter || spaceBefore || markBefore);
  const right = !spaceBefore && (!markBefore || spaceAfter || markAfter);
  const word = run[0] === "_";
  return {
    run: run[0],
    count: run.length,
    length: run.length,
    opens: left && (!word || !right || markBefore),
    closes: right && (!word || !left || markAfter),
  };
}

const firstOf = (text, at) => (at < text.length ? String.fromCodePoint(text.codePointAt(at)) : "");

function lastOf(text, at) {
  const low = text.charAt(at - 1);
  return /[\udc00-\udfff]/.test(low) ? text.slice(at - 2, at) : low;
}

/** Delimiter runs become emphasis where two match, text where not. */
function nest(items) {
  const out = [], openers = [], bottoms = new Map();
  let born = 0;
  for (const item of items) {
    if (typeof item === "string" || item.tag) {
      out.push(item);
      continue;
    }
    if (item.closes) {
      // No opener older than this fits this kind of closer: without it, many closers would search in vain for long.
      const kind = `${item.run}${item.opens}${item.length % 3}`;
      for (let at = openers.length - 1; item.count && at >= 0; ) {
        const opener = openers[at];
        if (opener.born < bottoms.get(kind)) break;
        if (matches(opener, item)) {
          openers.length = at + 1;
          wrap(out, opener, item);
          if (opener.count) continue;
          openers.pop();
        }
        at = Math.min(at, openers.length) - 1;
      }
      if (item.count) bottoms.set(kind, born);
    }
    if (!item.count) continue;
    out.push(item);
    if (item.opens) openers.push(Object.assign(item, { born: born++, index: out.length - 1 }));
  }
  return merged(out);
}

function matches(opener, closer) {
  if (opener.run !== closer.run) return false;
  if (opener.run === "~") return true;
  const odd = (opener.closes || closer.opens) && (opener.length + closer.length) % 3 === 0;
  return !odd || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

function wrap(out, opener, closer) {
  const used = opener.run === "~" || (opener.count > 1 && closer.count > 1) ? 2 : 1;
  const kids = merged(out.splice(opener.index + 1));
  const height = 1 + kids.reduce((highest, kid) => Math.max(highest, kid.height ?? 0), 0);
  opener.count -= used;
  closer.count -= used;
  if (!opener.count) out.pop();
  const marks = opener.run.repeat(used);
  if (height > HEIGHT_MAX) for (const part of [marks, kids, marks].flat()) out.push(part); // deeper than anybody means it
  else out.push({ ...node(opener.run === "~" ? "del" : used === 2 ? "strong" : "em", {}, kids), height });
}

/** Neighbouring texts as one; delimiter runs that matched nothing are text. */
function merged(items) {
  const out = [];
  let text = "";
  for (const item of items) {
    if (typeof item === "string") text += item;
    else if (item.run) text += item.run.repeat(item.count);
    else {
      if (text) out.push(text);
      text = "";
      out.push(item);
    }
  }
  if (text) out.push(text);
  return out;
}
