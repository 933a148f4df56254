//! Small files that would become large in memory, or cost minutes: each is refused in words, or read, within bounds. What a reading
//! takes is measured in a process of its own: the peak of its memory, under limits of the system on memory and processor time.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    str::FromStr,
};

use archipelago_anndata::{AnnData, Compression, H5adFile, inspect::inspect};
use hdf5::{
    Dataset, File,
    types::{CompoundField, CompoundType, IntSize, TypeDescriptor, VarLenUnicode},
};

use crate::example::everything;

/// Reads a file that `make` made of the example, in a process of its own; what it said. The process is this test again, which
/// then finds the file's path in the environment.
fn check(test: &str, most_mib: u64, make: impl FnOnce(&Path)) -> String {
    if let Some(path) = env::var_os(FILE) {
        report(Path::new(&path));
        return String::new();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5ad");
    everything().write(&path, Compression::None).unwrap();
    make(&path);
    // Address space beyond what is allowed in memory, so that it is the peak which is judged; seconds of processor time.
    let limits = format!("ulimit -v {} && ulimit -t 30 && exec timeout 120 \"$0\" \"$@\"", (most_mib + 512) << 10);
    let output = Command::new("sh")
        .args(["-c", &limits])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("bombs::{test}"), "--nocapture"])
        .env(FILE, &path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}{failed}", output.status);
    let line = |start: &str| {
        let found = said.lines().find_map(|line| line.split_once(start));
        found.unwrap_or_else(|| panic!("no `{start}` in {said}")).1.to_owned()
    };
    let peak_kib: u64 = line("peak KiB: ").parse().unwrap();
    assert!(peak_kib <= most_mib << 10, "{peak_kib} KiB at the peak, for {}", line("outcome: "));
    line("outcome: ")
}

/// Where the process that reads finds the path.
const FILE: &str = "ARCHIPELAGO_BOMB";

#[expect(clippy::print_stdout, reason = "how the process that reads tells what it found")]
fn report(path: &Path) {
    // These two must stay within the bounds as well, whatever they say.
    let _ = H5adFile::open(path).and_then(|file| file.rows(None)?.read_all());
    let _ = inspect(path);
    let outcome = match AnnData::read(path) {
        Ok(adata) => format!("{} × {}, {} of `var`", adata.n_obs(), adata.n_vars(), adata.var.columns().len()),
        Err(error) => error.to_string(),
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("\noutcome: {outcome}\npeak KiB: {}", peak.trim_end_matches("kB").trim());
}

fn change(path: &Path, change: impl FnOnce(&File)) {
    let file = File::open_rw(path).unwrap();
    change(&file);
    file.close().unwrap();
}

fn text(text: &str) -> VarLenUnicode {
    VarLenUnicode::from_str(text).unwrap()
}

/// Writes one text of four megabytes; the bytes that refer to it are given when the file is closed.
fn write_long(file: &File) -> u64 {
    let long = file.new_dataset::<VarLenUnicode>().shape(1).create("uns/long").unwrap();
    long.write_raw(&[text(&"A".repeat(4 << 20))]).unwrap();
    long.offset().unwrap()
}

/// Makes what stands at `places` of the file refer to what is referred to at `from`.
fn refer(path: &Path, from: u64, places: impl IntoIterator<Item = usize>) {
    let mut bytes = fs::read(path).unwrap();
    let reference = bytes[from as usize..from as usize + REFERENCE].to_vec();
    for place in places {
        bytes[place..place + REFERENCE].copy_from_slice(&reference);
    }
    fs::write(path, bytes).unwrap();
}

/// Bytes of a length, an address and an index.
const REFERENCE: usize = 16;

/// Texts that refer to the long one: two gigabytes of them.
const N: usize = 512;

#[test]
fn a_column_of_one_long_text_again_and_again_is_refused() {
    let said = check("a_column_of_one_long_text_again_and_again_is_refused", 64, |path| {
        let (mut from, mut to) = (0, 0);
        change(path, |file| {
            from = write_long(file);
            let many = file.new_dataset::<VarLenUnicode>().shape(N).create("uns/many").unwrap();
            many.write_raw(&vec![text("b"); N]).unwrap();
            to = many.offset().unwrap() as usize;
        });
        refer(path, from, (0..N).map(|at| to + at * REFERENCE));
    });
    assert!(said.is_empty() || said.contains("because many are the same one"), "{said}");
}

#[test]
fn references_that_a_filter_hides_are_held_when_they_are_read() {
    let said = check("references_that_a_filter_hides_are_held_when_they_are_read", 96, |path| {
        let (mut from, mut chunk) = (0, 0);
        change(path, |file| {
            from = write_long(file);
            let many = file.new_dataset::<VarLenUnicode>().chunk(N).shuffle().shape(N).create("uns/many").unwrap();
            many.write_raw(&vec![text("b"); N]).unwrap();
            file.flush().unwrap();
            chunk = many.chunk_info(0).unwrap().addr as usize;
        });
        let mut bytes = fs::read(path).unwrap();
        let reference = bytes[from as usize..from as usize + REFERENCE].to_vec();
        // The filter puts the first bytes of all elements first, then the second ones.
        for (at, byte) in reference.into_iter().enumerate() {
            bytes[chunk + at * N..chunk + (at + 1) * N].fill(byte);
        }
        fs::write(path, bytes).unwrap();
    });
    assert!(said.is_empty() || said.contains("/uns/many") && said.contains("many are the same ones"), "{said}");
}

#[test]
fn many_columns_of_one_long_text_are_held_together() {
    let said = check("many_columns_of_one_long_text_are_held_together", 96, |path| {
        let (mut from, mut chunks) = (0, Vec::new());
        change(path, |file| {
            from = write_long(file);
            let write = |i| {
                let builder = file.new_dataset::<VarLenUnicode>().chunk(2).shuffle().shape(2);
                let few = builder.create(format!("uns/few{i}").as_str()).unwrap();
                few.write_raw(&[text("b"), text("b")]).unwrap();
                few
            };
            let all: Vec<Dataset> = (0..N).map(write).collect();
            file.flush().unwrap();
            chunks = all.iter().map(|few| few.chunk_info(0).unwrap().addr as usize).collect();
        });
        let mut bytes = fs::read(path).unwrap();
        let reference = bytes[from as usize..from as usize + REFERENCE].to_vec();
        for chunk in chunks {
            for (at, &byte) in reference.iter().enumerate() {
                bytes[chunk + 2 * at..chunk + 2 * at + 2].fill(byte);
            }
        }
        fs::write(path, bytes).unwrap();
    });
    assert!(said.is_empty() || said.contains("/uns/few") && said.contains("many are the same ones"), "{said}");
}

#[test]
fn an_attribute_of_one_long_text_again_and_again_is_refused() {
    let said = check("an_attribute_of_one_long_text_again_and_again_is_refused", 64, |path| {
        let mut from = 0;
        change(path, |file| {
            from = write_long(file);
            let obs = file.group("obs").unwrap();
            obs.delete_attr("column-order").unwrap();
            let order = obs.new_attr::<VarLenUnicode>().shape(N).create("column-order").unwrap();
            order.write_raw(&vec![text("seventeen letters"); N]).unwrap();
        });
        let bytes = fs::read(path).unwrap();
        // Where so many lengths of 17 follow each other.
        let is_reference = |at: usize| bytes[at..at + 4] == 17_u32.to_le_bytes();
        let run = |at: &usize| (0..N).all(|i| is_reference(at + i * REFERENCE));
        let to = (0..bytes.len() - N * REFERENCE).find(run).unwrap();
        refer(path, from, (0..N).map(|at| to + at * REFERENCE));
    });
    assert!(said.is_empty() || said.contains("because many are the same one"), "{said}");
}

#[test]
fn a_chunk_far_larger_than_what_is_in_it_is_refused() {
    let said = check("a_chunk_far_larger_than_what_is_in_it_is_refused", 64, |path| {
        change(path, |file| {
            file.unlink("obs/n_counts").unwrap();
            let builder = file.new_dataset::<i8>().chunk(256 << 20).deflate(1).shape(3..);
            builder.create("obs/n_counts").unwrap().write_raw(&[0_i8, 1, 2]).unwrap();
        });
        assert!(fs::metadata(path).unwrap().len() < 4 << 20);
    });
    assert!(
        said.is_empty() || said.contains("/obs/n_counts") && said.contains("in chunks of 268435456 bytes"),
        "{said}"
    );
}

#[test]
fn many_names_of_one_dataset_are_counted_each() {
    let said = check("many_names_of_one_dataset_are_counted_each", 800, |path| {
        change(path, |file| {
            let zeros = file.new_dataset::<i8>().chunk(1 << 20).deflate(9).shape(16 << 20).create("uns/0").unwrap();
            zeros.write_raw(&vec![0_i8; 16 << 20]).unwrap();
            (1..200).for_each(|i| file.link_hard("/uns/0", &format!("uns/{i}")).unwrap());
        });
    });
    assert!(said.is_empty() || said.contains("more than the file can hold"), "{said}");
}

#[test]
fn records_of_a_thousand_fields_are_read_in_a_moment() {
    let said = check("records_of_a_thousand_fields_are_read_in_a_moment", 128, |path| {
        change(path, |file| {
            file.unlink("var").unwrap();
            let field = |i: usize| CompoundField::new(&format!("f{i}"), TypeDescriptor::Integer(IntSize::U1), i, i);
            let fields = (0..1200).map(field).collect();
            let record = TypeDescriptor::Compound(CompoundType { fields, size: 1200 });
            file.new_dataset_builder().empty_as(record).packed(true).shape(4).create("var").unwrap();
        });
    });
    assert!(said.is_empty() || said == "3 × 4, 1199 of `var`", "{said}");
}

#[test]
fn a_pipe_is_refused_without_waiting_for_a_writer() {
    let said = check("a_pipe_is_refused_without_waiting_for_a_writer", 64, |path| {
        fs::remove_file(path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    });
    assert!(said.is_empty() || said.contains("is not a regular file"), "{said}");
}
