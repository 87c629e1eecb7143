"""The page's Markdown in a real Chromium: what it draws, that nothing in it runs, that it streams."""

import json

import pytest
from chat_page import PAGE_TESTS, bare
from playwright.async_api import BrowserContext, CDPSession, Page

pytest_plugins = ["page_fixtures"]
pytestmark = PAGE_TESTS

DRAW = """async (pieces) => {
    const { Markdown } = await import("/static/markdown.js");
    const view = new Markdown(document.createElement("div"));
    for (const piece of pieces) { view.append(piece); view.draw(); }
    document.body.replaceChildren(view.root);
    return { html: view.root.innerHTML, source: view.source };
}"""
# What is on every block or link and says nothing about the text.
NOISE = (' rel="noopener noreferrer" target="_blank"', ' tabindex="0" role="region"', ' type="button"')


async def drawn(page: Page, text: str) -> str:
    html: str = (await page.evaluate(DRAW, [text]))["html"]
    for noise in NOISE:
        html = html.replace(noise, "")
    return html


def code(text: str, language: str = "") -> str:
    label = f"Code, {language}" if language else "Code"
    button = '<button class="copy-code">Copy code</button>'
    caption = f"<figcaption><span>{language or 'text'}</span>{button}</figcaption>"
    return f'<figure class="code">{caption}<pre aria-label="{label}"><code>{text}</code></pre></figure>'


def table(html: str) -> str:
    return f'<div class="table" aria-label="Table"><table>{html}</table></div>'


EXAMPLES = {
    "# One\n## Two ##\n###### Six": "<h1>One</h1><h2>Two</h2><h6>Six</h6>",
    "#hashtag\n####### seven": "<p>#hashtag\n####### seven</p>",
    "One\n===\nTwo\n---": "<h1>One</h1><h2>Two</h2>",
    "one\ntwo\n\nthree": "<p>one\ntwo</p><p>three</p>",
    "one\r\ntwo\r\n\r\nthree\r\r\nfour": "<p>one\ntwo</p><p>three</p><p>four</p>",
    "*a* **b** ***c*** _d_ __e__ ~~f~~": (
        "<p><em>a</em> <strong>b</strong> <em><strong>c</strong></em> <em>d</em> <strong>e</strong> <del>f</del></p>"
    ),
    "snake_case_name 2 * 3 * 4 \\*not\\*": "<p>snake_case_name 2 * 3 * 4 *not*</p>",
    "**range [0, 1) is half-open**": "<p><strong>range [0, 1) is half-open</strong></p>",
    "*a __b* c__ **d*e**": "<p><em>a __b</em> c__ <strong>d*e</strong></p>",
    "`a*b*` ``c`d`` ` e": "<p><code>a*b*</code> <code>c`d</code> ` e</p>",
    "```py\nx = 1\n\n\ty < 2\n```\nafter": code("x = 1\n\n\ty &lt; 2", "py") + "<p>after</p>",
    "~~~\nopen\n```": code("open\n```"),
    "    indented\n\n    more": code("indented\n\nmore"),
    "- a\n- b\n  - c\n\n    d": "<ul><li>a</li><li>b<ul><li><p>c</p><p>d</p></li></ul></li></ul>",
    "1. a\n  - nested by two\n2. b": "<ol><li>a<ul><li>nested by two</li></ul></li><li>b</li></ol>",
    "3) a\n4) b\n\n* c": '<ol start="3"><li>a</li><li>b</li></ol><ul><li>c</li></ul>',
    "- a\n\n- b\nlazy": "<ul><li><p>a</p></li><li><p>b\nlazy</p></li></ul>",
    "1. a\n   ```\n   x\n   ```\n2. b": f"<ol><li>a{code('x')}</li><li>b</li></ol>",
    "- [x] done": '<ul><li><span class="box" role="img" aria-label="done">☑</span> done</li></ul>',
    "> a\n> > b\n\nc": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
    "a\n***\nb\n* * *": "<p>a</p><hr><p>b</p><hr>",
    "| a | b |\n|:--|--:|\n| `1` | 2 \\| 3 |\n| x": table(
        '<thead><tr><th class="start">a</th><th class="end">b</th></tr></thead><tbody>'
        '<tr><td class="start"><code>1</code></td><td class="end">2 | 3</td></tr>'
        '<tr><td class="start">x</td><td class="end"></td></tr></tbody>'
    ),
    "no | table\nhere | either": "<p>no | table\nhere | either</p>",
    "[a](https://x.y/z_(w) 'title') <https://q.r>": (
        '<p><a href="https://x.y/z_(w)">a</a> <a href="https://q.r/">https://q.r</a></p>'
    ),
    "(see https://x.y/a_b_c).": '<p>(see <a href="https://x.y/a_b_c">https://x.y/a_b_c</a>).</p>',
    "<me@x.org> [m](mailto:me@x.org)": '<p><a href="mailto:me@x.org">me@x.org</a> <a href="mailto:me@x.org">m</a></p>',
    "![alt](https://i.j/k.png) ![](https://i.j/)": (
        '<p><a href="https://i.j/k.png">alt</a> <a href="https://i.j/">https://i.j/</a></p>'
    ),
    "[![badge](https://a.b/c.svg)](https://d.e)": '<p><a href="https://d.e/">badge</a></p>',
    "<b>bold</b> &amp; <!-- x -->": "<p>&lt;b&gt;bold&lt;/b&gt; &amp;amp; &lt;!-- x --&gt;</p>",
    "🛹 naïve 日本語 **名前**です": "<p>🛹 naïve 日本語 <strong>名前</strong>です</p>",
    "- שלום a\n- b": '<ul dir="rtl"><li>שלום a</li><li>b</li></ul>',
    "1. *مرحبا* `x`\n\nb שלום": '<ol dir="rtl"><li><em>مرحبا</em> <code>x</code></li></ol><p>b שלום</p>',
    "\u2028a\u0000b": "<p>a\u0000b</p>",
    "\n \n\t\n": "",
}


async def test_what_it_draws(tabs: BrowserContext) -> None:
    page = await bare(tabs)
    assert {text: await drawn(page, text) for text in EXAMPLES} == EXAMPLES


ALLOWED = {"div", "p", "h1", "ul", "li", "blockquote", "table", "thead", "tbody", "tr", "td", "th"}
ALLOWED |= {"pre", "code", "figure", "figcaption", "span", "button", "a"}
EVIL = [
    "<script>ran()</script><img src=x onerror=ran()><svg onload=ran()><iframe srcdoc='<script>parent.ran()</script>'>",
    "[a](javascript:ran()) [b](JaVaScRiPt:ran()) [c](java\tscript:ran()) [d](&#106;avascript:ran())",
    "[a](data:text/html,<script>ran()</script>) [b](vbscript:ran()) [c](file:///etc/passwd) [d](//evil.test/) [e](/)",
    '[a](https://x.y/"onmouseover="ran()) ![" onerror="ran()](https://x.y/)',
    "![x](javascript:ran()) <javascript:ran()> <data:text/html,x>",
    "```<script>ran()</script>\n</code></pre><script>ran()</script>\n```",
    "| <script>ran()</script> | b |\n|-|-|\n| <img src=x onerror=ran()> | [x](javascript:ran()) |",
    "# <script>ran()</script>\n- <img src=x onerror=ran()>\n> <style>*{display:none}</style>",
    "[x]: javascript:ran()\n\n[x] <a href=javascript:ran()>y</a>",
]


@pytest.mark.parametrize("text", EVIL)
async def test_nothing_in_it_runs_or_is_fetched(tabs: BrowserContext, text: str) -> None:
    page = await bare(tabs)
    await page.evaluate("() => { window.ran = () => { window.hasRun = true; }; }")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.evaluate(DRAW, [text])
    for link in await page.locator("a").all():
        assert await link.evaluate("(link) => ['http:', 'https:', 'mailto:'].includes(link.protocol)")
        assert await link.get_attribute("target") == "_blank"
        assert await link.get_attribute("rel") == "noopener noreferrer"
        await link.hover()
    tags = await page.evaluate("() => [...new Set([...document.body.querySelectorAll('*')].map((e) => e.localName))]")
    assert set(tags) <= ALLOWED
    names = await page.evaluate("() => [...document.querySelectorAll('body *')].flatMap((e) => e.getAttributeNames())")
    assert not {name for name in names if name.startswith("on") or name in ("src", "style", "srcdoc")}
    assert not await page.evaluate("() => window.hasRun")
    assert [url for url in asked if "/static/" not in url] == []


STREAM_ANYHOW = r"""async ({ seed, rounds }) => {
    const { Markdown } = await import("/static/markdown.js");
    const atoms = [
        "\n", "\n", "\n\n", "\r\n", "\r", "- ", "* ", "1. ", "2) ", "  ", "    ", "\t", "> ", "#", "# ", "```", "~~~",
        "`", "``", "*", "**", "_", "__", "~~", "[", "](", "]", "![", "https://a.b/", "(", ")", "|", "|a|b|\n",
        "|-|-|\n", "|--|:-:|", "---", "===", "=", "-", "a", "bc ", "word ", "\\", "<", "é", "🛹", "x\n", "[ ] ", ":",
        "שלום ",
    ];
    const random = (below) => (seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff, (seed >> 8) % below);
    const draw = (pieces) => {
        const view = new Markdown(document.createElement("div"));
        for (const piece of pieces) { view.append(piece); view.draw(); }
        return view.root;
    };
    for (let round = 0; round < rounds; round++) {
        const text = Array.from({ length: 1 + random(40) }, () => atoms[random(atoms.length)]).join("");
        const pieces = [];
        for (let at = 0; at < text.length; ) {
            const end = at + 1 + (round % 3 ? 0 : random(6));
            pieces.push(text.slice(at, end));
            at = end;
        }
        if (!draw(pieces).isEqualNode(draw([text])))
            return { text, streamed: draw(pieces).innerHTML, whole: draw([text]).innerHTML };
    }
    return null;
}"""


async def test_streamed_in_any_pieces_it_ends_up_as_if_drawn_at_once(tabs: BrowserContext) -> None:
    page = await bare(tabs)
    assert await page.evaluate(STREAM_ANYHOW, {"seed": 7, "rounds": 2500}) is None


LABOUR = """async (text) => {
    const { Markdown } = await import("/static/markdown.js");
    const view = new Markdown(document.createElement("div"));
    view.append(text);
    view.draw();
    return view.source;
}"""
UNIT = 100_000
HEAVY = {
    "stars": "*a " * (UNIT // 3),
    "nested": "*a " * (UNIT // 6) + "a* " * (UNIT // 6),
    "underscores": "_a_b" * (UNIT // 4),
    "brackets": "[" * UNIT,
    "targets": "[a](" * (UNIT // 4),
    "ticks": " ".join("`" * count for count in range(1, 400)),
    "parentheses": "https://" + ")" * UNIT,
    "hashes": "# " + "#" * UNIT + "x",
    "dashes": "a|b\n" + "-" * UNIT + "x",
    "quotes": ">" * UNIT,
    "bullets": "- " * (UNIT // 2),
    "items": "- a\n" * (UNIT // 4),
    "spaces": "a" + " " * UNIT + "b",
    "rows": "|a|b|\n|-|-|\n" + "|x|y|\n" * (UNIT // 6),
}


LABOUR_MAX_S = 1.5


async def worked_s(devtools: CDPSession) -> float:
    """How long the page's thread has worked: in time of the processor, so that other programs do not count."""
    told = (await devtools.send("Performance.getMetrics"))["metrics"]
    return float(next(each["value"] for each in told if each["name"] == "ThreadTime"))


async def test_hostile_texts_cost_no_more_than_long_ones(tabs: BrowserContext) -> None:
    page = await bare(tabs)
    devtools = await tabs.new_cdp_session(page)
    await devtools.send("Performance.enable")
    for name, text in HEAVY.items():
        for _ in range(3):  # a busy machine makes one slow; what is quadratic is slow every time
            before = await worked_s(devtools)
            assert await page.evaluate(LABOUR, text) == text
            spent = await worked_s(devtools) - before
            if spent < LABOUR_MAX_S:
                break
        assert spent < LABOUR_MAX_S, name  # quadratic ones take minutes


async def test_the_source_stays_as_it_came(tabs: BrowserContext) -> None:
    page = await bare(tabs)
    text = "a\r\nb\rc\n\u00a0 \t\u2028 🛹e\u0301\u0000 שלום `x`\n\n\n"
    told = await page.evaluate(DRAW, list(text))
    assert json.dumps(told["source"]) == json.dumps(text)


async def test_what_is_final_is_not_touched_again(tabs: BrowserContext) -> None:
    page = await bare(tabs)
    script = """async () => {
        const { Markdown } = await import("/static/markdown.js");
        const view = new Markdown(document.createElement("div"));
        view.append("one\\n\\ntwo\\n\\n```js\\n");
        view.draw();
        const blocks = [...view.root.children], code = view.root.querySelector("code");
        let changes = 0;
        new MutationObserver((all) => { changes += all.filter(({ target }) => !code.contains(target)).length; })
            .observe(view.root, { subtree: true, childList: true, characterData: true, attributes: true });
        for (let line = 0; line < 50; line++) { view.append(`line ${line}\\n`); view.draw(); }
        await new Promise((done) => setTimeout(done));
        const same = blocks.every((block, at) => block === view.root.children[at]);
        return changes === 0 && same && code.textContent.includes("line 49");
    }"""
    assert await page.evaluate(script)
