"""Inputs by which somebody tries to run code, to load something, or to spoil the screen of a reviewer.

``ID`` stands for the id of a payload: ``hit('ID')`` is code that ran, ``/canary/ID`` something that was loaded. Ids are
short, so that a payload stands whole where little is shown.
"""

#: markup that some front end turns into elements
MARKUP = {
    "script": "<script>hit('ID')</script>",
    "image": "<img src=x onerror=\"hit('ID')\">",
    "breakout": "'\"><img src=x onerror=\"hit('ID')\">",
    "textarea": "</textarea></script></title><img src=x onerror=\"hit('ID')\">",
    "svg": "<svg onload=\"hit('ID')\"><script>hit('ID')</script></svg>",
    "svg image": "<svg><image href=x onerror=\"hit('ID')\" /></svg>",
    "audio": "<audio src=x onerror=\"hit('ID')\"></audio>",
    "video": "<video><source onerror=\"hit('ID')\"></video>",
    "focus": "<input autofocus onfocus=\"hit('ID')\">",
    "details": "<details open ontoggle=\"hit('ID')\">x</details>",
    "marquee": "<marquee onstart=\"hit('ID')\">x</marquee>",
    "frame": "<iframe src=\"javascript:parent.hit('ID')\"></iframe>",
    "frame document": "<iframe srcdoc=\"<script>parent.hit('ID')</script>\"></iframe>",
    "object": '<object data="/canary/ID"></object>',
    "embed": '<embed src="/canary/ID">',
    "link": "<a href=\"javascript:hit('ID')\">here</a>",
    "entity link": "<a href=\"java&#x09;script:hit('ID')\">here</a>",
    "form": "<form action=\"javascript:hit('ID')\"><button>Approve</button></form>",
    "beacon": '<img src="/canary/ID">',
    "beacon outside": '<img src="http://canary.invalid/ID">',
    "beacon style": "<style>@import '/canary/ID';</style>",
    "style": "<style>.hitl button{display:none}</style>",
    "overlay": '<div style="position:fixed;inset:0;background:red" class="canary">Saved</div>',
    "refresh": '<meta http-equiv="refresh" content="0;url=/canary/ID">',
    "base": '<base href="http://canary.invalid/">',
}
#: what templates, Markdown and TeX turn into markup
LANGUAGES = {
    "template": "{{constructor.constructor(\"hit('ID')\")()}}${hit('ID')}<%= hit('ID') %>#{hit('ID')}",
    "markdown link": "[here](javascript:hit('ID'))",
    "markdown image": "![x](/canary/ID)",
    "markdown handler": "![x](x\"onerror=\"hit('ID'))",
    "markdown html": "**x** <img src=x onerror=\"hit('ID')\">",
    "tex link": r"$\href{javascript:hit('ID')}{here}$",
    "tex style": r"$\style{position:fixed;inset:0;background:red}{x}$",
    "tex class": r"$$\class{canary}{x}$$ \(\unicode{x}\)",
    "ansi": "\x1b[2J\x1b]8;;javascript:hit('ID')\x07here\x1b]8;;\x07",
    "terminal": "\x1b[31mred\x1b[0m\r\x08\x08",
}
#: characters that hide, reorder or break text
CHARACTERS = {
    "zero width": "pay\u200bpal \u2060\ufeffadmin",
    "bidi": "ok \u202egnp.exe\u202c \u2066x",
    "controls": "a\x01b\x08c\x7fd\x85e",
    "separators": "a\u2028b\u2029c",
    "tags": "a\U000e0041\U000e0042b",
    "pile": "Z" + "\u0301\u0336" * 200,
    "long word": "w" * 250,
    "astral": "\U0001f600" * 100 + "\U0010ffff",
    "path": "/etc/passwd",
    "data": "data:text/html,<script>hit('ID')</script>",
    "sql": "'; DROP TABLE task; --",
    "prototype": "__proto__",
}
ALL = MARKUP | LANGUAGES | CHARACTERS


def hostile(field, most=300):
    """Return every payload, each with an id of its field and its number."""
    return [text.replace("ID", f"{field}{number}")[:most] for number, text in enumerate(ALL.values())]
