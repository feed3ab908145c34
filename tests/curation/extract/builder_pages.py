"""Pages in the mark-up of page builders, shops, forums and documentation tools, with invented text.

Each system is a frame (what surrounds the content: menus, side columns, footers, as the system writes them) and a box
that it puts around each piece of content. Every system is filled with each kind of content of `CONTENTS`. `MUST` holds
what the text of a page must contain, `MUST_NOT` what the frames hold and the text must not.
"""

# ruff: noqa: E501 (mark-up as programs write it)
from __future__ import annotations

from typing import NamedTuple

PROSE = (
    "The mill at Oakford was rebuilt in the spring after the flood, and most of the village had come to watch.",
    "Its stones came from a quarry nine miles away, carried on carts that needed six horses each.",
    "In summer the race runs dry, so the miller works at night, when the gardens upstream are not watered.",
    "Visitors are welcome on Sundays, when the daughter explains how the gears turn and sells rye flour.",
)
CODE = (
    "def whirl(sacks):\n    for sack in sacks:\n        if sack.full:\n            mill(sack)\n\n    return len(sacks)"
)
TABLE = "<table><thead><tr><th>Year</th><th>Rye</th><th>Wheat</th></tr></thead><tbody><tr><td>1901</td><td>12</td><td></td></tr><tr><td>1902</td><td></td><td>15</td></tr></tbody></table>"
LIST = "<ul><li>an oak axle</li><li>an iron tyre</li><li>two millstones</li></ul>"


def paragraphs(*numbers: int) -> str:
    return "".join(f"<p>{PROSE[number]}</p>" for number in numbers)


CONTENTS: dict[str, tuple[list[str], list[str]]] = {  # kind -> (pieces, what must be in the text)
    "prose": ([paragraphs(0), paragraphs(1), paragraphs(2, 3)], list(PROSE)),
    "code": ([paragraphs(0, 1), f"<pre><code>{CODE}</code></pre>", paragraphs(2)], [PROSE[0], CODE, PROSE[2]]),
    "table": ([paragraphs(0, 1), TABLE, paragraphs(3)], [PROSE[1], "Year | Rye | Wheat\n1901 | 12 |\n1902 |  | 15", PROSE[3]]),
    "lists": ([f"<h2>Parts of the wheel</h2>{paragraphs(0, 1)}", LIST, f"<h2>Water</h2>{paragraphs(2)}<ol start=4><li>Open the sluice</li></ol>{paragraphs(3)}"],
              ["Parts of the wheel", "- an oak axle\n- an iron tyre\n- two millstones", "4. Open the sluice", PROSE[3]]),
}  # fmt: skip

NAV = '<ul class="menu"><li><a href="/">Front page</a></li><li><a href="/shop">Our shop</a></li><li><a href="/contact">Write to us</a></li></ul>'
FOOT = (
    '<p>Copyright 2021 Oakford Trust. All rights reserved, also those of translation.</p><a href="/imprint">Imprint</a>'
)
MUST_NOT = ("Front page", "Write to us", "All rights reserved")


class System(NamedTuple):
    """`frame` has the places {nav}, {body} and {foot}; `box` has {piece}."""

    frame: str
    box: str = "{piece}"


PLAIN = "<html><body><nav>{nav}</nav><main><h1>The mill</h1>{body}</main><footer>{foot}</footer></body></html>"
SYSTEMS = {
    "Tailwind": System('<body class="antialiased bg-white"><header class="sticky top-0 z-40"><nav class="hidden md:flex">{nav}</nav></header><main class="max-w-7xl mx-auto"><h1 class="text-3xl">The mill</h1>{body}</main><footer class="border-t py-8">{foot}</footer>',
                       '<div class="relative overflow-hidden rounded-lg shadow sm:hidden-none">{piece}</div>'),
    "Bootstrap": System('<body><nav class="navbar navbar-expand-lg">{nav}</nav><div class="container"><div class="row"><div class="col-md-8"><h1>The mill</h1>{body}</div></div></div><footer class="footer mt-auto">{foot}</footer>',
                        '<div class="card-body hidden-print no-gutters">{piece}</div>'),
    "Bootstrap, modal": System(PLAIN, '<div class="modal-body">{piece}</div>'),
    "Elementor": System('<body class="elementor-default elementor-page"><header data-elementor-type="header" class="elementor elementor-location-header"><nav class="elementor-nav-menu">{nav}</nav></header><div data-elementor-type="wp-page" class="elementor elementor-7"><section class="elementor-section elementor-top-section"><div class="elementor-container elementor-column-gap-default"><div class="elementor-column elementor-col-100"><div class="elementor-widget-wrap elementor-element-populated"><div class="elementor-element elementor-widget elementor-widget-heading"><div class="elementor-widget-container"><h1>The mill</h1></div></div>{body}</div></div></div></section></div><footer data-elementor-type="footer" class="elementor-location-footer">{foot}</footer>',
                        '<div class="elementor-element elementor-widget elementor-widget-text-editor" data-widget_type="text-editor.default"><div class="elementor-widget-container">{piece}</div></div>'),
    "Gutenberg": System('<body class="wp-singular"><div class="wp-site-blocks"><header class="wp-block-template-part"><nav class="wp-block-navigation">{nav}</nav></header><main class="wp-block-group is-layout-flow"><h1 class="wp-block-post-title">The mill</h1><div class="entry-content wp-block-post-content is-layout-constrained">{body}</div></main><footer class="wp-block-template-part">{foot}</footer></div>',
                        '<div class="wp-block-group has-background is-layout-constrained">{piece}</div>'),
    "Gutenberg, figure": System(PLAIN, '<figure class="wp-block-table is-style-stripes">{piece}</figure>'),
    "WordPress, categories": System('<body class="single has-sidebar"><div id="page" class="site"><header id="masthead" class="site-header"><nav id="site-navigation">{nav}</nav></header><div id="content" class="site-content"><article id="post-7" class="post-7 post type-post category-social tag-gallery tag-newsletter hentry"><h1 class="entry-title">The mill</h1><div class="entry-content">{body}</div></article></div><footer id="colophon" class="site-footer">{foot}</footer></div>'),
    "Divi": System('<body class="et_pb_pagebuilder_layout"><header id="main-header"><nav id="top-menu-nav">{nav}</nav></header><div id="main-content"><article class="page"><div class="entry-content"><div class="et_builder_inner_content et_pb_gutters3"><div class="et_pb_section"><h1>The mill</h1>{body}</div></div></div></article></div><footer id="main-footer">{foot}</footer>',
                   '<div class="et_pb_row et_pb_gutters2"><div class="et_pb_module et_pb_text"><div class="et_pb_text_inner">{piece}</div></div></div>'),
    "Webflow": System('<body><div class="navbar w-nav" role="banner">{nav}</div><div class="section wf-section"><div class="w-layout-blockcontainer w-container"><h1>The mill</h1>{body}</div></div><div class="footer">{foot}</div>',
                      '<div class="w-richtext overflow-hidden">{piece}</div>'),
    "Squarespace": System('<body><header id="header"><nav class="header-nav">{nav}</nav></header><main id="page"><article class="sections"><section class="page-section"><h1>The mill</h1>{body}</section></article></main><footer class="sections" id="footer-sections">{foot}</footer>',
                          '<div class="sqs-block html-block sqs-block-html"><div class="sqs-block-content"><div class="sqs-html-content">{piece}</div></div></div>'),
    "Wix": System('<body><div id="SITE_CONTAINER"><header id="SITE_HEADER"><nav>{nav}</nav></header><main id="PAGES_CONTAINER"><div data-testid="mesh-container-content"><h1>The mill</h1>{body}</div></main><footer id="SITE_FOOTER">{foot}</footer></div>',
                  '<div class="wixui-rich-text" data-testid="richTextElement">{piece}</div>'),
    "Drupal": System('<body class="path-node"><header role="banner"><nav>{nav}</nav></header><main role="main"><article class="node node--type-article node--view-mode-full"><h1>The mill</h1><div class="node__content">{body}</div></article></main><footer class="site-footer">{foot}</footer>',
                     '<div class="clearfix text-formatted field field--name-body field--label-hidden field__item">{piece}</div>'),
    "Docusaurus": System('<head><meta name="generator" content="Docusaurus v3.1"></head><body><nav class="navbar navbar--fixed-top">{nav}</nav><div class="main-wrapper docsWrapper"><main class="docMainContainer"><div class="container"><div class="row"><div class="col docItemCol"><article><div class="theme-doc-markdown markdown"><header><h1>The mill</h1></header>{body}</div></article></div></div></div></main></div><footer class="footer footer--dark">{foot}</footer>',
                         '<div class="theme-admonition theme-admonition-note alert alert--secondary"><div class="admonitionContent_BuS1">{piece}</div></div>'),
    "Sphinx": System('<head><meta name="generator" content="Sphinx 7.2"></head><body><div class="document"><div class="documentwrapper"><div class="bodywrapper"><div class="body" role="main"><section id="mill"><h1>The mill<a class="headerlink" href="#mill">¶</a></h1>{body}</section></div></div></div><div class="sphinxsidebar" role="navigation"><div class="sphinxsidebarwrapper">{nav}</div></div></div><div class="footer">{foot}</div>',
                     '<div class="admonition seealso"><p class="admonition-title">See also</p>{piece}</div>'),
    "MkDocs": System('<head><meta name="generator" content="mkdocs-1.5, mkdocs-material-9"></head><body><header class="md-header"><nav class="md-header__inner">{nav}</nav></header><main class="md-main"><div class="md-content" data-md-component="content"><article class="md-content__inner md-typeset"><h1>The mill</h1>{body}</article></div></main><footer class="md-footer">{foot}</footer>',
                     '<details class="note" open><summary>More</summary>{piece}</details>'),
    "Read the Docs": System('<body class="wy-body-for-nav"><div class="wy-grid-for-nav"><nav class="wy-nav-side">{nav}</nav><section class="wy-nav-content-wrap"><div class="wy-nav-content"><div class="rst-content"><div role="main" class="document" itemscope="itemscope" itemtype="http://schema.org/Article"><div itemprop="articleBody"><section><h1>The mill</h1>{body}</section></div></div><footer>{foot}</footer></div></div></section></div>'),
    "VitePress": System('<head><meta name="generator" content="VitePress v1.0"></head><body><div class="Layout"><header class="VPNav"><div class="VPNavBar">{nav}</div></header><div class="VPContent has-sidebar"><div class="VPDoc has-sidebar has-aside"><main class="main"><div class="vp-doc"><h1>The mill</h1>{body}</div></main></div></div><footer class="VPFooter has-sidebar">{foot}</footer></div>'),
    "Shopify": System('<body><div id="shopify-section-header" class="shopify-section"><nav>{nav}</nav></div><main id="MainContent"><section class="product-section"><div class="product__info-wrapper"><h1 class="product__title">The mill</h1>{body}</div></section></main><footer class="footer shopify-section-group-footer-group">{foot}</footer>',
                      '<div class="product__description rte quick-add-hidden">{piece}</div>'),
    "Discourse": System('<head><meta name="generator" content="Discourse 3.2"></head><body class="crawler"><header><nav>{nav}</nav></header><div id="main-outlet" class="wrap" role="main"><h1>The mill</h1><div itemscope itemtype="http://schema.org/DiscussionForumPosting">{body}</div></div><footer class="container wrap">{foot}</footer>',
                        '<div class="topic-body crawler-post"><div class="post" itemprop="text">{piece}</div></div>'),
    "Discourse, noscript": System('<head><meta name="generator" content="Discourse 3.2"></head><body><discourse-assets></discourse-assets><noscript data-path="/t/1"><header class="d-header">{nav}</header><div id="main-outlet" role="main"><h1>The mill</h1>{body}</div><footer class="container">{foot}</footer></noscript>',
                                  '<div class="topic-body crawler-post"><div class="post">{piece}</div></div>'),
    "Stack Exchange": System('<body class="question-page"><header class="s-topbar"><nav>{nav}</nav></header><div id="content"><h1>The mill</h1><div id="mainbar">{body}</div></div><footer id="footer" class="site-footer">{foot}</footer>',
                             '<div class="answer js-answer"><div class="post-layout"><div class="answercell post-layout--right"><div class="s-prose js-post-body">{piece}</div></div></div></div>'),
    "phpBB": System('<body id="phpbb" class="nojs notouch section-viewtopic"><div id="page-header"><div class="navbar" role="navigation">{nav}</div></div><div id="page-body" class="page-body" role="main"><h2 class="topic-title">The mill</h2>{body}</div><div id="page-footer" class="page-footer" role="contentinfo">{foot}</div>',
                    '<div class="post has-profile bg2"><div class="inner"><dl class="postprofile"><dt>miller4</dt><dd>Posts: 12</dd></dl><div class="postbody"><div class="content">{piece}</div></div></div></div>'),
    "Medium": System('<body><div id="root"><div class="a b c"><nav>{nav}</nav></div><article><section><div class="ab ca"><div class="ch bg fw"><h1 class="pw-post-title">The mill</h1>{body}</div></div></section></article><footer>{foot}</footer></div>'),
    "Substack": System('<body><div id="main" class="main typography"><nav class="main-menu">{nav}</nav><div class="single-post-container"><article class="typography newsletter-post post"><h1 class="post-title published">The mill</h1><div class="available-content"><div class="body markup">{body}</div></div></article></div><footer class="footer-wrap publication-footer">{foot}</footer></div>'),
}  # fmt: skip


class BuilderPage(NamedTuple):
    """A page with the snippets that must and must not be in its text."""

    name: str
    html: str
    present: list[str]
    absent: tuple[str, ...] = MUST_NOT


def builder_pages() -> list[BuilderPage]:
    """Every system with every kind of content."""
    return [
        BuilderPage(
            f"{system}: {kind}",
            frame.replace("{nav}", NAV).replace("{foot}", FOOT)
            .replace("{body}", "".join(box.replace("{piece}", piece) for piece in pieces)),
            present,
        )
        for system, (frame, box) in SYSTEMS.items()
        for kind, (pieces, present) in CONTENTS.items()
    ]  # fmt: skip
