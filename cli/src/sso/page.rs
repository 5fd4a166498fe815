//! The page that the browser shows at the end: complete in itself, so that it works without network, and without a word
//! that could become markup.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b2130;--soft:#566074;--paper:#f3f5f8;--card:#fff;--line:#dfe3ea;--good:#15754a;--bad:#b3261e;\
--glow:0 1px 2px #1b213014,0 12px 32px -12px #1b213033}\
@media(prefers-color-scheme:dark){:root{--ink:#e9ecf3;--soft:#a6aebf;--paper:#0f1218;--card:#191d26;--line:#2b313e;--good:#5bd197;\
--bad:#ff8f86;--glow:none}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.25rem;background:var(--paper);color:var(--ink);\
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
main{width:100%;max-width:29rem;padding:2.5rem 2.25rem 1.5rem;background:var(--card);border:1px solid var(--line);\
border-radius:16px;box-shadow:var(--glow);text-align:center;overflow-wrap:anywhere}\
.good{--tone:var(--good)}.bad{--tone:var(--bad)}\
svg{display:block;width:3.5rem;height:3.5rem;margin:0 auto 1.25rem;fill:none;stroke:var(--tone);stroke-width:1.6;\
stroke-linecap:round;stroke-linejoin:round}\
circle{fill:var(--tone);fill-opacity:.1}\
h1{margin:0 0 .5rem;font-size:1.5rem;line-height:1.25;letter-spacing:-.01em}\
p{margin:0}\
.why{margin-top:1rem;padding:.8rem 1rem;border-left:3px solid var(--tone);border-radius:4px 10px 10px 4px;background:var(--paper);text-align:left}\
.next{margin-top:1.5rem;color:var(--soft);text-wrap:balance}\
code{display:block;margin-top:.5rem;padding:.7rem 1rem;border:1px solid var(--line);border-radius:10px;background:var(--paper);\
color:var(--ink);font:.95rem/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}\
footer{margin-top:1.75rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);font-size:.875rem}";

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
    /// The login is complete; `command` is what the person may run now.
    pub(super) fn success(person: &str, command: &str) -> Self {
        let text = format!(
            "<p>as <strong>{}</strong></p><p class=\"next\">Go on in the terminal, for example with</p><code>{}</code>",
            escape(person),
            escape(command)
        );
        Self { status: "200 OK", html: document("good", TICK, "Logged in", &text) }
    }

    /// It is over without success; `command` is what tries it again.
    pub(super) fn failure(why: &str, command: &str) -> Self {
        let text = format!(
            "<p class=\"why\">{}</p><p class=\"next\">Nothing was saved. Try again in the terminal:</p>\
             <code>{}</code>",
            escape(&sentence(why)),
            escape(command)
        );
        Self { status: "400 Bad Request", html: document("bad", CROSS, "Not logged in", &text) }
    }

    /// An answer that belongs to no login of ours.
    pub(super) fn stranger() -> Self {
        let text = "<p class=\"why\">This answer does not belong to the login that gprxy is waiting for. It may come from an \
                    older tab.</p>\
                    <p class=\"next\">Go on in the newest tab, or again in the terminal:</p><code>gprxy login</code>";
        Self { status: "400 Bad Request", html: document("bad", CROSS, "Not this login", text) }
    }

    /// Anything but the callback.
    pub(super) fn nothing_here() -> Self {
        let text = "<p class=\"why\">There is nothing here: gprxy only waits for the answer of a login.</p>";
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
         <svg viewBox=\"0 0 24 24\" aria-hidden=\"true\">{icon}</svg><h1>{title}</h1>{text}\
         <footer>gprxy · You can close this tab.</footer></main><script>{SCRIPT}</script></body></html>"
    )
}

/// Content Security Policy Level 3, section 2.3.1: only this very text runs.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

/// As a sentence of its own; in the terminal it stands behind a colon.
fn sentence(words: &str) -> String {
    let mut rest = words.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if words.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!("{first}{}{end}", rest.as_str())
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
        for page in [Page::success(evil, evil), Page::failure(evil, evil)] {
            let response = page.response();
            assert!(!response.contains("<script>alert") && !response.contains("<img"), "{response}");
            assert!(response.contains("&lt;script&gt;alert(1)"), "{response}");
            assert_eq!(response.matches("<script").count(), 1);
        }
    }

    #[test]
    fn pages_need_nothing_from_elsewhere_and_announce_their_length() {
        for page in [Page::success("é", "y"), Page::failure("x", "y"), Page::stranger(), Page::nothing_here()] {
            let response = page.response();
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())));
            assert!(!body.contains("http://") && !body.contains("https://") && !body.contains("src="), "{body}");
            assert!(head.contains("default-src 'none'") && head.contains("no-store"));
            assert!(head.lines().all(|line| !line.contains('\n')));
        }
    }

    #[test]
    fn reasons_are_sentences() {
        for (words, told) in [("the end", "The end."), ("What?", "What?"), ("élan", "Élan.")] {
            assert_eq!(sentence(words), told);
        }
    }
}
