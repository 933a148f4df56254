//! Pickles written by hand: what is read, what is refused, and where.

use archipelago_common::limits;
use proptest::prelude::*;
use serde_json::json;

use super::{Elements, Fault, NdArray, Pickle, PickleWriter, Scalar, parse};

/// `{"a": [1, -2.5, None, True], "b": "text"}` of protocol 4, with frame and memo.
const PLAIN: &[u8] = b"\x80\x04\x95\x2b\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94]\x94(K\x01G\xc0\x04\0\0\0\0\0\0N\x88e\x8c\x01b\x94\x8c\x04text\x94u.";

fn read(bytes: &[u8]) -> Pickle {
    parse(bytes).unwrap_or_else(|fault| panic!("{fault}"))
}

fn check_refused(bytes: &[u8], expected: Fault) {
    assert_eq!(parse(bytes).unwrap_err(), expected, "{bytes:?}");
}

#[test]
fn plain_values_are_read() {
    let pickle = read(PLAIN);
    assert_eq!(pickle.root().to_json().unwrap(), json!({ "a": [1, -2.5, null, true], "b": "text" }));
    assert_eq!(pickle.root().get("b").unwrap().as_str(), Some("text"));
    assert!(pickle.root().get("c").is_none());
}

#[test]
fn what_is_changed_after_it_was_remembered_is_changed_everywhere() {
    // a = []; b = (a, a); a.append(7)
    let pickle = read(b"\x80\x02]q\x00h\x00h\x00\x86q\x01h\x00K\x07a0.");
    assert_eq!(pickle.root().to_json().unwrap(), json!([[7], [7]]));
}

#[test]
fn a_pickle_cut_anywhere_says_where_it_ends() {
    for length in 0..PLAIN.len() {
        check_refused(&PLAIN[..length], Fault::Truncated { offset: length });
    }
}

#[test]
fn classes_that_no_model_needs_are_refused_by_name() {
    for (bytes, class, offset) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "os.system", 2),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system", 17),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval", 18),
        (b"\x80\x02c__builtin__\ngetattr\n.", "__builtin__.getattr", 2),
        (b"\x80\x02ctorch.hub\nload\n.", "torch.hub.load", 2),
        (b"\x80\x02cpandas\nread_pickle\n.", "pandas.read_pickle", 2),
        (b"\x80\x02cnumpy.testing._private.utils\nrunstring\n.", "numpy.testing._private.utils.runstring", 2),
    ] {
        check_refused(bytes, Fault::Class { class: class.to_owned(), offset });
    }
}

#[test]
fn opcodes_that_no_model_needs_are_refused_by_name() {
    for (bytes, opcode) in [
        (&b"\x80\x02ios\nsystem\n."[..], "INST"),
        (b"\x80\x02o.", "OBJ"),
        (b"\x80\x02P1\n.", "PERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x83\x01\0.", "EXT2"),
        (b"\x80\x02\x84\x01\0\0\0.", "EXT4"),
        (b"\x80\x05\x92.", "NEWOBJ_EX"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x02I1\n.", "INT"),
        (b"\x80\x02\xff.", "0xff"),
    ] {
        check_refused(bytes, Fault::Opcode { opcode: opcode.to_owned(), offset: 2 });
    }
    let message = parse(b"\x80\x02o.").unwrap_err().to_string();
    assert_eq!(message, "opcode OBJ at byte 2 is refused");
}

#[test]
fn contradictions_are_refused_where_they_show() {
    for (bytes, offset, words) in [
        (&b"\x80\x02."[..], 2, "empty stack"),
        (b"\x80\x09N.", 0, "protocol 9"),
        (b"\x80\x02h\x05.", 2, "memo 5"),
        (b"\x80\x02t.", 2, "mark that was never set"),
        (b"\x80\x02N(0.", 4, "empty stack"),
        (b"\x80\x02}(K\x01u.", 6, "key without a value"),
        (b"\x80\x02NK\x01a.", 5, "items added to None"),
        (b"\x80\x02N)R.", 4, "None called with a tuple"),
        (b"\x80\x02]Nb.", 4, "state set on a list"),
        (b"\x80\x02X\x01\0\0\0\xff.", 2, "not UTF-8"),
        (b"\x80\x02\x8a\x09\0\0\0\0\0\0\0\0\0.", 2, "integer of 9 bytes"),
    ] {
        match parse(bytes).unwrap_err() {
            Fault::Malformed { offset: found, detail } => {
                assert!(found == offset && detail.contains(words), "{bytes:?}: {detail} at {found}");
            }
            other => panic!("{bytes:?}: {other}"),
        }
    }
}

#[test]
fn an_announced_length_allocates_nothing() {
    let length = u64::MAX.to_le_bytes();
    let bytes = [&[0x80, 4, 0x8d][..], &length, b"abc."].concat();
    check_refused(&bytes, Fault::Truncated { offset: bytes.len() });
}

#[test]
fn shared_and_nested_lists_do_not_explode() {
    // 30 levels of a list that holds the one before ten times.
    let mut bytes = b"\x80\x02]q\x00".to_vec();
    for level in 0..30_u8 {
        bytes.extend(b"](");
        (0..10).for_each(|_| bytes.extend([b'h', level]));
        bytes.extend([b'e', b'q', level + 1]);
    }
    bytes.push(b'.');
    assert!(read(&bytes).root().to_json().is_none(), "10^30 lists are more than options have");

    let deep = [b"\x80\x02".to_vec(), vec![b']'; 100_000], vec![b'a'; 99_999], b".".to_vec()].concat();
    assert!(read(&deep).root().to_json().is_none());

    let itself = b"\x80\x02]q\x00h\x00a.";
    assert!(read(itself).root().to_json().is_none());
}

#[test]
fn no_opcode_takes_more_memory_than_its_bound() {
    // One opcode again and again: a mark, a reference to the same object, the same object in a list, its place in the memo.
    let bomb = |start: &[u8], each: &[u8], n: usize| [b"\x80\x04", start, &each.repeat(n)].concat();
    let (most, objects) = (limits::PICKLE_REFERENCES, limits::PICKLE_OBJECTS);
    for (bytes, unit, limit, bound) in [
        (bomb(b"", b"(", 8 * limits::PICKLE_DEPTH), "open marks", limits::PICKLE_DEPTH, 4 << 20),
        (bomb(b"N\x94", b"h\0", most + 1), "references between objects", most, 2 << 30),
        (
            bomb(b"N\x94]", &[b"(".as_slice(), &b"h\0".repeat(1 << 16), b"e"].concat(), 1 << 11),
            "references between objects",
            most,
            2 << 30,
        ),
        (bomb(b"N", b"\x94", objects + 1), "remembered objects", objects, 2 << 30),
    ] {
        let mut fault = None;
        let used = allocation_counter::measure(|| fault = parse(&bytes).err());
        assert_eq!(fault, Some(Fault::TooLarge { limit, unit }));
        assert!(used.bytes_max <= bound, "{} bytes for {unit}", used.bytes_max);
    }
}

/// An array of numpy as protocol 2 has it.
fn array(module: &str, shape: &str, dtype: &str, order: char, is_fortran: bool, data: &[u8]) -> Vec<u8> {
    let mut bytes = [b"\x80\x02c", module.as_bytes(), b"\n_reconstruct\n(cnumpy\nndarray\nK\0\x85"].concat();
    bytes.extend(b"c_codecs\nencode\n(X\x01\0\0\0bX\x06\0\0\0latin1tRtR(K\x01(");
    shape.bytes().for_each(|digit| bytes.extend([b'K', digit - b'0']));
    bytes.extend(b"tcnumpy\ndtype\n(X");
    bytes.extend((dtype.len() as u32).to_le_bytes());
    bytes.extend(dtype.bytes());
    bytes.extend(b"\x89\x88tR(K\x03X\x01\0\0\0");
    bytes.extend([order as u8]);
    bytes.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
    bytes.extend([if is_fortran { 0x88 } else { 0x89 }]);
    bytes.extend(data);
    bytes.extend(b"tb.");
    bytes
}

fn raw(data: &[u8]) -> Vec<u8> {
    [&[b'B'][..], &(data.len() as u32).to_le_bytes(), data].concat()
}

#[test]
fn arrays_of_every_type_are_read_under_both_module_names() {
    let text: Vec<u8> = "AB\0".chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
    let scalars = |dtype: &str, order: char, shape: &str, data: &[u8]| {
        ["numpy.core.multiarray", "numpy._core.multiarray"].map(|module| {
            let pickle = read(&array(module, shape, dtype, order, false, &raw(data)));
            NdArray::of(pickle.root()).and_then(|array| array.scalars())
        })
    };
    for (dtype, order, shape, data, expected) in [
        (
            "i8",
            '<',
            "2",
            &[1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255][..],
            vec![Scalar::Int(1), Scalar::Int(-1)],
        ),
        ("i2", '>', "1", &[1, 2], vec![Scalar::Int(258)]),
        ("u1", '|', "1", &[200], vec![Scalar::Int(200)]),
        ("f4", '<', "1", &1.5_f32.to_le_bytes(), vec![Scalar::Float(1.5)]),
        ("f8", '<', "1", &(-0.25_f64).to_le_bytes(), vec![Scalar::Float(-0.25)]),
        ("b1", '|', "2", &[1, 0], vec![Scalar::Bool(true), Scalar::Bool(false)]),
        ("U3", '<', "1", &text, vec![Scalar::Text("AB".to_owned())]),
    ] {
        assert_eq!(scalars(dtype, order, shape, data), [Some(expected.clone()), Some(expected)], "{dtype}");
    }
    // Too few bytes, an unknown type, a character that is none.
    for (dtype, data) in [("i8", &[1, 0][..]), ("c8", &[0; 8]), ("U1", &[0xff; 4]), ("M8", &[0; 8])] {
        assert_eq!(scalars(dtype, '<', "1", data), [None, None], "{dtype}");
    }
}

#[test]
fn arrays_in_column_order_come_out_in_row_order() {
    let pickle = read(&array("numpy.core.multiarray", "23", "u1", '|', true, &raw(&[1, 4, 2, 5, 3, 6])));
    let array = NdArray::of(pickle.root()).unwrap();
    assert_eq!(array.shape, [2, 3]);
    assert!(matches!(array.elements, Elements::Int(values) if values == [1, 2, 3, 4, 5, 6]));
}

#[test]
fn arrays_of_objects_keep_the_type_of_each() {
    let list = b"](X\x01\0\0\0aK\x05e";
    let pickle = read(&array("numpy._core.multiarray", "2", "O8", '|', false, list));
    assert_eq!(pickle.root().scalars().unwrap(), [Scalar::Text("a".to_owned()), Scalar::Int(5)]);
}

#[test]
fn what_is_written_reads_back() {
    let value = json!({
        "text": "cœur", "none": null, "flags": [true, false], "numbers": [0, -1, 70_000, 5_000_000_000_i64, 0.1],
        "nested": { "empty": {}, "list": [] },
    });
    let mut writer = PickleWriter::default();
    writer.json(&value);
    assert_eq!(read(&writer.finish()).root().to_json().unwrap(), value);
}

proptest! {
    #[test]
    fn garbage_is_an_error_or_a_value_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(pickle) = parse(&bytes) {
            let _ = (pickle.root().to_json(), pickle.root().scalars());
        }
    }

    #[test]
    fn damage_is_an_error_or_a_value_but_never_a_panic(at in 0..1_000_usize, byte in any::<u8>(), which in 0..3) {
        let mut bytes = match which {
            0 => PLAIN.to_vec(),
            1 => array("numpy.core.multiarray", "23", "u1", '|', true, &raw(&[1, 4, 2, 5, 3, 6])),
            _ => array("numpy.core.multiarray", "2", "O8", '|', false, b"](X\x01\0\0\0aK\x05e"),
        };
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(pickle) = parse(&bytes) {
            let _ = (pickle.root().to_json(), pickle.root().scalars(), pickle.root().bytes());
        }
    }
}
