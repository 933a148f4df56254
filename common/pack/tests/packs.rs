//! Packs are what was packed, whoever had them in between.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use archipelago_common::{
    Base, BaseCard, Columns, DType, Layout, Name, StateDict, Tensor, reference_dir::ReferenceDir,
    state_dict::TensorSpec,
};
use archipelago_pack::{Card, Contents, EMBEDDING, Error, Pack};
use archipelago_transport::{
    Authorities, Credentials,
    ca::{Authority, Validity},
};

struct Scene {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = TensorSpec { dtype: DType::F32, shape: vec![2] };
        let base = Base {
            card: BaseCard {
                format: BaseCard::PLAIN_FORMAT,
                model: "scvi".to_owned(),
                config: Default::default(),
                genes: vec!["CD3D".to_owned(), "LYZ".to_owned()],
                batch_key: "batch".to_owned(),
                labels_key: None,
                labels: vec!["T cell".to_owned()],
                layout: Layout::plain([("w".to_owned(), spec)].into()),
                moves_embedding: true,
                training: Default::default(),
                recipe: None,
            },
            tensors: StateDict::from_iter([("weight".to_owned(), Tensor::from_f32(&[3], &[1.0, 2.0, 3.0]))]),
        };
        let columns = |x| Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[2], &[x, -x]))]));
        let columns = ["anna/core/a", "anna/core/b"].map(|key| (key.parse().unwrap(), columns(key.len() as f32)));
        ReferenceDir::write(&dir.path().join("reference"), &base, &columns.into()).unwrap();
        fs::write(dir.path().join("places.h5ad"), b"places of cells").unwrap();
        let authority = Authority::create(Name::parse("name", "lung").unwrap(), Validity::days(1)).unwrap().0;
        fs::write(dir.path().join("ca.pem"), authority.certificate()).unwrap();
        Self { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn authorities(&self) -> Authorities {
        Authorities::load(&self.path("ca.pem")).unwrap()
    }

    fn reference(&self) -> ReferenceDir {
        ReferenceDir::open(&self.path("reference")).unwrap()
    }

    /// A pack of this name, signed by these people: of the reference, and of the manifest.
    fn pack(&self, name: &str, signers: Option<[&str; 2]>) -> PathBuf {
        let credentials = |who: &str| {
            let issued = self.authority.issue(&who.parse().unwrap(), Validity::days(1)).unwrap();
            Credentials::from_pem(self.authority.certificate(), &issued.certificate, &issued.key).unwrap()
        };
        let mut signers = signers.into_iter().flatten().map(credentials);
        let (path, reference, dir) = (self.path(name), self.reference(), self.path("reference"));
        let card = Card { title: "Lung of two".to_owned(), license: "CC-BY-4.0".to_owned(), ..Card::default() };
        let (name, places) = ("lung".parse().unwrap(), self.path("places.h5ad"));
        let contents =
            Contents { name: &name, reference: &reference, dir: &dir, embedding: Some(&places), card: &card };
        archipelago_pack::write::<Error>(&path, &contents, now_ms(), |statement| {
            Ok(signers.next().map(|credentials| credentials.sign(statement).unwrap()))
        })
        .unwrap();
        path
    }
}

/// Within the life of the certificates that are made here.
fn now_ms() -> u64 {
    time::OffsetDateTime::now_utc().unix_timestamp() as u64 * 1000
}

/// The entries of a zip, by name.
fn entries(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut zip = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
    let read = |name: String| {
        let mut bytes = Vec::new();
        zip.by_name(&name).unwrap().read_to_end(&mut bytes).unwrap();
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

/// Writes a zip of these entries.
fn forge(path: &Path, entries: &[(String, Vec<u8>)]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn what_was_packed_is_unpacked_and_its_publisher_is_known() {
    let scene = Scene::new();
    let path = scene.pack("lung.zip", Some(["operator/anna"; 2]));
    assert!(Pack::is_one(&path) && !Pack::is_one(&scene.path("ca.pem")) && !Pack::is_one(&scene.path("nowhere")));
    let mut pack = Pack::open(&path).unwrap();
    assert_eq!(pack.signer(&scene.authorities()).unwrap().to_string(), "archipelago://lung/operator/anna");
    assert_eq!(
        (pack.manifest().version, pack.manifest().card.title.as_str()),
        (scene.reference().version().id(), "Lung of two")
    );
    let unpacked = pack.unpack(&scene.path("unpacked")).unwrap();
    assert_eq!(unpacked.version(), scene.reference().version());
    assert_eq!(fs::read(scene.path("unpacked").join(EMBEDDING)).unwrap(), b"places of cells");
    let page = fs::read_to_string(scene.path("unpacked/README.md")).unwrap();
    assert!(page.contains("# Lung of two") && page.contains("Licence: CC-BY-4.0") && page.contains("T cell"), "{page}");
    // Somebody without this program has the directory too.
    let names: Vec<String> = entries(&path).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"reference/version.json".to_owned()) && names[0] == "README.md", "{names:?}");
}

#[test]
fn the_same_contents_make_the_same_bytes() {
    let scene = Scene::new();
    let [one, other] = ["one.zip", "other.zip"].map(|name| fs::read(scene.pack(name, None)).unwrap());
    assert_eq!(one, other);
}

#[test]
fn who_signed_something_else_is_not_believed() {
    let scene = Scene::new();
    let authorities = scene.authorities();
    let refused = |path: &Path| Pack::open(path).unwrap().signer(&authorities).unwrap_err();
    assert!(matches!(refused(&scene.pack("unsigned.zip", None)), Error::Unsigned { .. }));
    assert!(matches!(refused(&scene.pack("two.zip", Some(["operator/anna", "operator/ben"]))), Error::Signer { .. }));
    assert!(matches!(refused(&scene.pack("site.zip", Some(["site/north"; 2]))), Error::Signer { .. }));
    let other = Scene::new();
    let error = refused(&other.pack("other.zip", Some(["operator/anna"; 2])));
    assert!(matches!(error, Error::Signature { .. }), "another authority of the same name: {error}");

    // Another card, with the signatures of the first.
    let path = scene.pack("lung.zip", Some(["operator/anna"; 2]));
    let mut entries = entries(&path);
    let manifest = entries.iter_mut().find(|(name, _)| name == "manifest.json").unwrap();
    manifest.1 = String::from_utf8(manifest.1.clone()).unwrap().replace("CC-BY-4.0", "CC0-1.0").into_bytes();
    forge(&scene.path("changed.zip"), &entries);
    assert!(matches!(refused(&scene.path("changed.zip")), Error::Signature { .. }));
}

#[test]
fn other_bytes_and_missing_files_are_found() {
    let scene = Scene::new();
    let whole = entries(&scene.pack("lung.zip", None));
    let changed = |name: &str, bytes: Option<&[u8]>| {
        let mut entries = whole.clone();
        entries.retain_mut(|(found, kept)| {
            let is_it = found == name;
            if let (true, Some(bytes)) = (is_it, bytes) {
                *kept = bytes.to_vec();
            }
            !is_it || bytes.is_some()
        });
        forge(&scene.path("forged.zip"), &entries);
        Pack::open(&scene.path("forged.zip")).and_then(|mut pack| pack.unpack(&scene.path("out")).map(drop))
    };
    for name in ["reference/base.safetensors", "reference/columns/1.safetensors", EMBEDDING] {
        let large = vec![7; 1 << 20];
        assert!(changed(name, Some(&large)).unwrap_err().to_string().contains(name));
        assert!(fs::metadata(scene.path("out").join(name.trim_start_matches("reference/"))).unwrap().len() < 1 << 20);
        assert!(changed(name, None).unwrap_err().to_string().contains(name));
        assert!(!scene.path("out/version.json").exists(), "nothing says that it is whole");
    }
    assert!(changed("manifest.json", None).unwrap_err().to_string().contains("it has no `manifest.json`"));
    assert!(changed("manifest.json", Some(b"{\"format\": 2}")).unwrap_err().to_string().contains("its format is 2"));
    assert!(changed("manifest.json", Some(b"[]")).unwrap_err().to_string().contains("manifest.json"));
    assert!(changed("nothing", None).is_ok());
    fs::write(scene.path("text.zip"), "no zip").unwrap();
    assert!(matches!(Pack::open(&scene.path("text.zip")).unwrap_err(), Error::Format { .. }));
}
