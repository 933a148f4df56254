//! Models whose package saves one archive: there and back, and what is refused.

use archipelago_models::{
    formats::archive::SavedArchive,
    upstream::{DataAtHand, Namespace, archived, reference_to_archive},
    zoo::ZOO,
};

use crate::reference;

#[test]
fn a_reference_comes_back_from_its_archive() {
    let mut n_models = 0;
    for model in ZOO {
        let reference = reference(*model);
        let Some((saved, _)) = reference_to_archive(&reference).unwrap() else { continue };
        n_models += 1;
        let dir = tempfile::tempdir().unwrap();
        let file = saved.write(dir.path()).unwrap();
        let read = SavedArchive::of(&file).unwrap().unwrap();
        assert_eq!(read, saved);
        let card = &reference.base.card;
        let batches = ["a", "b"].map(str::to_owned).to_vec();
        let data = DataAtHand { genes: card.genes.clone(), batch_key: card.batch_key.clone(), batches };
        let names = Namespace { owner: "site".parse().unwrap(), dataset: "data".parse().unwrap() };
        let theirs = archived(&read).unwrap();
        assert_eq!(theirs.condition_column(&read).as_deref(), Some("batch"));
        let back = theirs.to_reference(&read, &data, &names).unwrap();
        assert_eq!((&back.base.tensors, &back.columns), (&reference.base.tensors, &reference.columns));
        assert_eq!(back.base.card.config, card.config);

        let fewer = DataAtHand { batches: vec!["a".to_owned()], ..data.clone() };
        assert!(theirs.to_reference(&read, &fewer, &names).is_err(), "conditions that do not fit the table");
        let other = DataAtHand { genes: card.genes[1..].to_vec(), ..data };
        assert!(theirs.to_reference(&read, &other, &names).is_err(), "genes that do not fit the tensors");
        let mut foreign = read.clone();
        foreign.values.clear();
        assert!(archived(&foreign).is_err());
    }
    assert!(n_models > 0);
}
