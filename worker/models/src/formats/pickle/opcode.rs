//! Opcodes by number, and their names for messages.

macro_rules! opcodes {
    ($($name:ident = $byte:expr),* $(,)?) => {
        $(pub(super) const $name: u8 = $byte;)*

        /// The name in Python's `pickletools`, or the number of an opcode that does not exist.
        pub(super) fn name(opcode: u8) -> String {
            match opcode {
                $($name => stringify!($name).to_owned(),)*
                other => REFUSED.iter().find(|(byte, _)| *byte == other).map_or_else(
                    || format!("0x{other:02x}"),
                    |(_, name)| (*name).to_owned(),
                ),
            }
        }
    };
}

opcodes! {
    MARK = b'(',
    STOP = b'.',
    POP = b'0',
    POP_MARK = b'1',
    BINFLOAT = b'G',
    BININT = b'J',
    BININT1 = b'K',
    BININT2 = b'M',
    NONE = b'N',
    BINPERSID = b'Q',
    REDUCE = b'R',
    BINUNICODE = b'X',
    BINBYTES = b'B',
    SHORT_BINBYTES = b'C',
    EMPTY_LIST = b']',
    APPEND = b'a',
    BUILD = b'b',
    GLOBAL = b'c',
    APPENDS = b'e',
    BINGET = b'h',
    LONG_BINGET = b'j',
    BINPUT = b'q',
    LONG_BINPUT = b'r',
    SETITEM = b's',
    TUPLE = b't',
    EMPTY_TUPLE = b')',
    SETITEMS = b'u',
    EMPTY_DICT = b'}',
    PROTO = 0x80,
    NEWOBJ = 0x81,
    TUPLE1 = 0x85,
    TUPLE2 = 0x86,
    TUPLE3 = 0x87,
    NEWTRUE = 0x88,
    NEWFALSE = 0x89,
    LONG1 = 0x8a,
    SHORT_BINUNICODE = 0x8c,
    BINUNICODE8 = 0x8d,
    BINBYTES8 = 0x8e,
    EMPTY_SET = 0x8f,
    ADDITEMS = 0x90,
    FROZENSET = 0x91,
    STACK_GLOBAL = 0x93,
    MEMOIZE = 0x94,
    FRAME = 0x95,
    BYTEARRAY8 = 0x96,
}

/// Opcodes that exist and that no saved model needs: text forms of protocol 0, strings of Python 2, and ways to make
/// instances or reach outside of the pickle.
const REFUSED: &[(u8, &str)] = &[
    (b'2', "DUP"),
    (b'F', "FLOAT"),
    (b'I', "INT"),
    (b'L', "LONG"),
    (b'P', "PERSID"),
    (b'S', "STRING"),
    (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"),
    (b'V', "UNICODE"),
    (b'd', "DICT"),
    (b'g', "GET"),
    (b'i', "INST"),
    (b'l', "LIST"),
    (b'o', "OBJ"),
    (b'p', "PUT"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x8b, "LONG4"),
    (0x92, "NEWOBJ_EX"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];
