//! For the admin console.

use gprxy_proto::testing::wire::front;

use super::{Named, after};

/// A look around, a change, and every message of the extended protocol.
pub(super) fn console() -> Vec<Named> {
    let look = b"\0\x07";
    let admin = b"\x05\x07";
    let required = b"\x17\x07";
    let extended = [
        front::parse("s", "SHOW STATE"),
        front::describe(b'S', "s"),
        front::bind("p", "s"),
        front::describe(b'P', "p"),
        front::execute("p", 1),
        front::execute("p", 0),
        front::close(b'P', "p"),
        front::close(b'S', "s"),
        front::sync(),
    ]
    .concat();
    let failing =
        [front::parse("", "SELECT $1"), front::bind("", ""), front::execute("", 0), front::flush(), front::sync()];
    vec![
        ("look", after(look, front::query("SHOW CLIENTS; SHOW HELP; SELECT 1"))),
        ("look-and-touch", after(look, front::query("RELOAD"))),
        ("change", after(admin, front::query("PAUSE \"a\"\"b\"; SET a = 'b''c' -- d\n; KILL_CLIENT 1"))),
        ("change-recorded", after(required, [front::query("SUSPEND"), front::query("SHUTDOWN")].concat())),
        ("extended", after(look, extended)),
        ("extended-failing", after(look, failing.concat())),
        ("courtesies", after(look, front::query("BEGIN; SET client_encoding TO 'UTF8'; COMMIT; DISCARD ALL"))),
        ("comments", after(look, front::query("/* /* */ */ SHOW VERSION -- /*"))),
        ("open-quote", after(look, front::query("PAUSE \"a"))),
        ("no-command", after(look, front::query("GIVE ME EVERYTHING"))),
        ("function-call", after(look, [front::function_call(1), front::terminate()].concat())),
        ("too-long", after(look, b"Q\x7f\xff\xff\xff")),
    ]
}
