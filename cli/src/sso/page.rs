//! The page that the browser shows at the end: complete in itself, so that it works without network, and without a word
//! that could become markup.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2330;--soft:#5c6474;--paper:#f6f7f9;--card:#fff;--line:#e2e5ea;--good:#1a7f4b;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--ink:#e8eaf0;--soft:#a2a9b8;--paper:#14171d;--card:#1d2129;--line:#2c323d;--good:#56c98d;--bad:#ff8a80}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);\
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
main{width:100%;max-width:30rem;padding:2.25rem;background:var(--card);border:1px solid var(--line);border-radius:14px}\
svg{display:block;width:3rem;height:3rem;margin-bottom:1.1rem;fill:none;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}\
.good svg{stroke:var(--good)}.bad svg{stroke:var(--bad)}\
h1{margin:0 0 .6rem;font-size:1.4rem;line-height:1.25}\
p{margin:.5rem 0;overflow-wrap:anywhere}\
.soft{color:var(--soft)}\
code{padding:.1rem .4rem;border-radius:6px;background:var(--paper);border:1px solid var(--line);font:.92em ui-monospace,Menlo,Consolas,monospace}";

/// The code stands in the address. It is used up by now, and nobody needs it in a history or on a shared screen.
const SCRIPT: &str = "history.replaceState(null,'',location.pathname)";

const TICK: &str = r#"<circle cx="12" cy="12" r="10"/><path d="m7.5 12.5 3 3 6-6.5"/>"#;
const CROSS: &str = r#"<circle cx="12" cy="12" r="10"/><path d="m8.5 8.5 7 7m0-7-7 7"/>"#;

/// One page with its status.
pub(super) struct Page {
    status: &'static str,
    html: String,
}

impl Page {
    /// The login is complete.
    pub(super) fn success(person: &str) -> Self {
        let person = escape(person);
        let text = format!(
            "<p>You are logged in as <strong>{person}</strong>.</p>\
             <p class=\"soft\">You can close this tab and go back to the terminal. To run a query: \
             <code>gprxy psql -d DATABASE</code></p>"
        );
        Self { status: "200 OK", html: document("good", TICK, "Logged in", &text) }
    }

    /// It is over without success.
    pub(super) fn failure(why: &str) -> Self {
        let why = escape(why);
        let text = format!(
            "<p>{why}</p>\
             <p class=\"soft\">Nothing was saved. The terminal says the same; to try again, run <code>gprxy login</code> \
             there. You can close this tab.</p>"
        );
        Self { status: "400 Bad Request", html: document("bad", CROSS, "Not logged in", &text) }
    }

    /// An answer that belongs to no login of ours.
    pub(super) fn stranger() -> Self {
        let text = "<p>This answer does not belong to the login that gprxy is waiting for.</p>\
                    <p class=\"soft\">It may come from an older tab. Go on in the newest one, or run <code>gprxy login</code> \
                    in the terminal again.</p>";
        Self { status: "400 Bad Request", html: document("bad", CROSS, "Not this login", text) }
    }

    /// Anything but the callback.
    pub(super) fn nothing_here() -> Self {
        let text = "<p>There is nothing here: gprxy only waits for the answer of a login.</p>";
        Self { status: "404 Not Found", html: document("bad", CROSS, "Not found", text) }
    }

    /// The whole response (RFC 9112).
    pub(super) fn response(&self) -> String {
        let (style, script) = (hash(STYLE), hash(SCRIPT));
        format!(
            "HTTP/1.1 {}\r\n\
             content-type: text/html; charset=utf-8\r\n\
             content-length: {}\r\n\
             content-security-policy: default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'\r\n\
             cache-control: no-store\r\n\
             referrer-policy: no-referrer\r\n\
             x-content-type-options: nosniff\r\n\
             connection: close\r\n\r\n{}",
            self.status,
            self.html.len(),
            self.html
        )
    }
}

fn document(class: &str, icon: &str, title: &str, text: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title} · gprxy</title>\
         <style>{STYLE}</style></head><body><main class=\"{class}\">\
         <svg viewBox=\"0 0 24 24\" aria-hidden=\"true\">{icon}</svg><h1>{title}</h1>{text}</main>\
         <script>{SCRIPT}</script></body></html>"
    )
}

/// Content Security Policy Level 3, section 2.3.1: only this very text runs.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// Text as text, inside elements and inside quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => {
                let _ = write!(out, "{}", c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_from_outside_never_become_markup() {
        let evil = "\"><script>alert(1)</script><img src=x onerror='x'>&\u{0}";
        for page in [Page::success(evil), Page::failure(evil)] {
            let response = page.response();
            assert!(!response.contains("<script>alert") && !response.contains("<img"), "{response}");
            assert!(response.contains("&lt;script&gt;alert(1)"), "{response}");
            assert_eq!(response.matches("<script").count(), 1);
        }
    }

    #[test]
    fn pages_need_nothing_from_elsewhere_and_announce_their_length() {
        for page in [Page::success("é"), Page::failure("x"), Page::stranger(), Page::nothing_here()] {
            let response = page.response();
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())));
            assert!(!body.contains("http://") && !body.contains("https://") && !body.contains("src="), "{body}");
            assert!(head.contains("default-src 'none'") && head.contains("no-store"));
            assert!(head.lines().all(|line| !line.contains('\n')));
        }
    }
}
