"""How the report looks: on a screen of 390 pixels and more, light or dark, and printed on two pages of A4."""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root { --page: #fff; --text: #1c2126; --faint: #5d6872; --line: #d5dbe0; --box: #f3f5f7; --bar: #3b528b;
  --accent: #b3261e; --caution: #fff4e0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181b; --text: #e7eaed; --faint: #a0aab3; --line: #343b42; --box: #1f2429; --bar: #7f9fe0;
    --accent: #ff8a80; --caution: #3a2c12; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1100px; background: var(--page); color: var(--text);
  font: 16px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.5rem; line-height: 1.2; }
.name, td { overflow-wrap: anywhere; }
.purpose { margin: 4px 0 12px; color: var(--accent); font-weight: 600; }
.cautions { margin: 0 0 16px; padding: 10px 16px; background: var(--caution); border-left: 4px solid var(--accent); }
.cautions h2 { margin: 0; font-size: 1rem; }
.cautions ul { margin: 4px 0 0; padding-left: 20px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 8px; margin-bottom: 16px; }
.key { padding: 10px 12px; background: var(--box); border-radius: 6px; }
.key strong { display: block; font-size: 1.4rem; line-height: 1.2; }
.key span, .key small { display: block; color: var(--faint); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 16px; }
figure { margin: 0 0 16px; min-width: 0; }
figcaption { margin-top: 4px; color: var(--faint); font-size: .875rem; }
img { display: block; width: 100%; max-height: 640px; object-fit: contain; object-position: left top; }
img.map { image-rendering: pixelated; }
svg { display: block; width: 100%; height: auto; margin-top: 6px; }
svg text { fill: var(--text); font-size: 13px; }
.sizes svg { max-width: 720px; }
svg .bar { fill: var(--bar); }
svg .axis { stroke: var(--faint); }
svg .quartile { stroke: var(--accent); stroke-dasharray: 4 3; }
table { width: 100%; margin: 0 0 16px; border-collapse: collapse; font-size: .875rem; break-inside: avoid; }
caption { padding: 4px 0; text-align: left; font-size: 1rem; font-weight: 600; }
th, td { padding: 3px 8px 3px 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { width: 34%; color: var(--faint); font-weight: 400; }
td { font-variant-numeric: tabular-nums; }
th i { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 2px;
  print-color-adjust: exact; }
footer { color: var(--faint); font-size: .875rem; }
@media (max-width: 500px) { svg text { font-size: 18px; } }
@media (min-width: 760px) { .tables { columns: 2; column-gap: 32px; } }
#settings { break-inside: auto; }
@page { size: A4; margin: 12mm; }
@media print {
  :root { --page: #fff; --text: #000; --faint: #444; --line: #ccc; --box: #f3f5f7; --bar: #3b528b; --accent: #b3261e;
    --caution: #fff4e0; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  .key, .cautions, svg, img { print-color-adjust: exact; }
  .cautions { font-size: 8pt; }
  .figures { grid-template-columns: repeat(5, 1fr); }
  .key strong { font-size: 12pt; }
  .pictures { grid-template-columns: 1fr 1fr; }
  .pictures img { max-height: 75mm; }
  figure { break-inside: avoid; }
  svg text { font-size: 13px; }
  .sizes svg { max-height: 46mm; margin: 0 auto; }
  .tables { break-before: page; }
  table { margin-bottom: 10px; font-size: 8pt; line-height: 1.3; }
  caption { padding: 2px 0; font-size: 9pt; }
  th, td { padding: 0 6px 0 0; }
  .tables { columns: 2; column-gap: 8mm; }
  footer { font-size: 7pt; }
}
"""
