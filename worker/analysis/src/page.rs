//! Self-contained HTML pages of results: one file, nothing fetched, light or dark as the reader likes.
//!
//! Pictures are embedded in both themes and the reader's browser takes the fitting one. Text from data goes through
//! [`escape`] before it becomes part of a page.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::Result;
use crate::plot::{Figure, Theme, turns};

/// A page in the making.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    body: String,
}

/// How a picture is stored in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Pixels: many cells.
    Pixels,
    /// Shapes and letters: few marks.
    Shapes,
}

impl Page {
    /// A page with a heading and a sentence or two under it, both plain text.
    pub fn new(title: &str, lead: &str) -> Self {
        let body = format!("<h1>{}</h1>\n<p class=\"lead\">{}</p>\n", escape(title), escape(lead));
        Self { title: title.to_owned(), body }
    }

    /// Adds a section: a heading in plain text, and what follows as HTML.
    pub fn section(&mut self, heading: &str, html: &str) {
        let id: String = heading.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let heading = escape(heading);
        let _ =
            writeln!(self.body, "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{heading}</h2>\n{html}</section>");
    }

    /// Adds HTML as it is.
    pub fn html(&mut self, html: &str) {
        self.body.push_str(html);
    }

    /// The whole document.
    pub fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{}</title>\n<style>{STYLE}</style></head><body><main>\n{}</main></body></html>\n",
            escape(&self.title),
            self.body
        )
    }
}

/// A picture with a caption in plain text; `alt` says in words what it shows. `draw` is asked for both themes.
///
/// # Errors   what `draw` fails with, a picture too large for pixels
pub fn picture(draw: impl Fn(&Theme) -> Result<Figure>, stored: Stored, alt: &str, caption: &str) -> Result<String> {
    let source = |theme: &Theme| -> Result<String> {
        let figure = draw(theme)?;
        Ok(match stored {
            Stored::Pixels => data_uri("image/png", &figure.png(PIXELS)?),
            Stored::Shapes => data_uri("image/svg+xml", figure.svg().as_bytes()),
        })
    };
    let (light, dark) = (source(&Theme::LIGHT)?, source(&Theme::DARK)?);
    let (alt, caption) = (escape(alt), escape(caption));
    Ok(format!(
        "<figure><picture><source media=\"(prefers-color-scheme: dark)\" srcset=\"{dark}\"><img alt=\"{alt}\" src=\"{light}\">\
         </picture><figcaption>{caption}</figcaption></figure>\n"
    ))
}

/// A file's bytes as an address that needs no network.
pub fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(bytes))
}

/// A table of plain texts; columns after the first are numbers, to the right. `caption` says what it holds.
pub fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut html =
        format!("<div class=\"scroll\" tabindex=\"0\"><table><caption>{}</caption>\n<thead><tr>", escape(caption));
    for (at, name) in head.iter().enumerate() {
        let class = if at > 0 { " class=\"n\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{class}>{}</th>", escape(name));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let _ = match at {
                0 => write!(html, "<th scope=\"row\">{}</th>", escape(cell)),
                _ => write!(html, "<td class=\"n\">{}</td>", escape(cell)),
            };
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody></table></div>\n"
}

/// Names and values side by side, both plain text.
pub fn facts(rows: &[(&str, String)]) -> String {
    let mut html = "<dl>".to_owned();
    for (name, value) in rows {
        let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    }
    html + "</dl>\n"
}

/// A remark in small letters, plain text.
pub fn note(text: &str) -> String {
    format!("<p class=\"note\">{}</p>\n", escape(text))
}

/// Text with the characters that mean something in HTML replaced.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // A name must not turn the line that it stands in.
            turning if turns(turning) => escaped.push_str(&format!("U+{:04X}", u32::from(turning))),
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// A number with its digits in groups of three.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(" ")
}

/// A number of bytes.
pub fn bytes(n: u64) -> String {
    const KIB: f64 = 1024.0;
    match n {
        0 => "none".to_owned(),
        1..1_024 => format!("{n} B"),
        1_024..1_048_576 => format!("{:.1} KiB", n as f64 / KIB),
        _ => format!("{:.1} MiB", n as f64 / KIB / KIB),
    }
}

/// Pixels per unit of a drawing.
const PIXELS: f64 = 2.0;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5b6675;--paper:#fbfbf9;--card:#fff;--line:#dfe3e8;--good:#1b7f5c;--bad:#b3341f}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#9aa5b4;--paper:#14181e;--card:#16191e;--line:#313a46;--good:#4cc79a;--bad:#ff7a63}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 .5rem}h2{font-size:1.2rem;margin:2.5rem 0 .75rem}
.lead{font-size:1.1rem;color:var(--dim);margin:0 0 1.5rem}.note{color:var(--dim);font-size:.875rem}
.claims{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.75rem}
.claim{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--good);border-radius:6px;padding:.75rem 1rem}
.claim b{display:block;color:var(--good)}.claim span{font-size:.9rem}
.claim.fails{border-left-color:var(--bad)}.claim.fails b{color:var(--bad)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.75rem;margin:0}
dl div{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.6rem .9rem;overflow-wrap:anywhere}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-weight:600}
.scroll{overflow-x:auto;margin-top:1.25rem}table{border-collapse:collapse;width:100%;background:var(--card);font-size:.925rem}
caption{text-align:left;color:var(--dim);font-size:.875rem;padding:.2rem 0 .5rem}
th,td{border-bottom:1px solid var(--line);padding:.45rem .7rem;text-align:left}th{color:var(--dim);font-weight:600}
tbody th{color:var(--ink);font-weight:400}
.n{text-align:right;font-variant-numeric:tabular-nums}
figure{margin:1.5rem 0 0;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.5rem}
img{max-width:100%;height:auto;border-radius:6px;display:block;margin:0 auto}
figcaption{color:var(--dim);font-size:.9rem;margin:.4rem .5rem}
.lineage li{margin:.3rem 0}code{font-size:.9em}.id{color:var(--good)}
@media print{body{background:#fff}section{break-inside:avoid}}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 12, 1_234, 1_234_567].map(thousands), ["0", "12", "1 234", "1 234 567"]);
        assert_eq!([0, 12, 1_536, 3 << 20].map(bytes), ["none", "12 B", "1.5 KiB", "3.0 MiB"]);
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        let mut page = Page::new("<T>", "a & b");
        page.section("What \"left\"", &table("<c>", &["<h>"], &[vec!["<r>".to_owned()]]));
        let text = page.finish();
        assert!(!text.contains("<T>") && !text.contains("<c>") && !text.contains("<h>") && !text.contains("<r>"));
        assert!(text.contains("id=\"what--left-\""), "{text}");
    }

    #[test]
    fn a_picture_comes_in_both_themes_and_needs_no_network() {
        let draw = |theme: &Theme| Ok(Figure::grid(Some("Nothing"), &[], 1, theme));
        let html = picture(draw, Stored::Shapes, "an \"empty\" picture", "empty").unwrap();
        assert_eq!(html.matches("data:image/svg+xml;base64,").count(), 2);
        assert!(html.contains("prefers-color-scheme: dark") && !html.contains("http"), "{html}");
    }
}
