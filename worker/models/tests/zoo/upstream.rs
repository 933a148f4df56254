//! Upstream's surgery as a whole: approximate, but usable.

use archipelago_common::progress::Silent;
use archipelago_models::{
    Categorical, CellConditions, Device, Extension, NoCheckpoints,
    surgery::{Placement, UpstreamSurgery, upstream::Flags, upstream_surgery},
    zoo,
};

use crate::{batch, cells, joined, key, reference, spec};

#[test]
fn it_moves_earlier_conditions_only_where_batch_norm_or_their_cells_take_part() {
    let (x, y) = (batch(3, 40), batch(4, 40));
    let reference = reference(zoo::model("scvi").unwrap());
    let query = joined(&[&x, &y]);
    let names: Vec<&str> = [["x"; 40], ["y"; 40]].concat();
    let conditions = CellConditions::from_batches(&Categorical::from_values(&names), |name| Ok(key(name))).unwrap();
    let map = |flags| {
        let (cells, spec) = (cells(&query), spec(2));
        let placement = Placement::End;
        let (conditions, spec, device) = (&conditions, &spec, Device::Cpu);
        let ask = UpstreamSurgery {
            cells: &cells,
            conditions,
            spec,
            flags,
            placement,
            device,
            extension: &Extension::default(),
        };
        upstream_surgery(&reference, &ask, &mut Silent, &mut NoCheckpoints).unwrap()
    };
    let frozen = map(Flags { freeze_batchnorm_decoder: true, ..Flags::default() }).reference;
    assert_eq!(frozen.columns.len(), 4);
    assert_eq!(frozen.columns[&key("a")], reference.columns[&key("a")]);
    let default = map(Flags::default());
    assert_eq!(default.history.len(), 2);
    let name = "decoder.px_decoder.fc_layers.Layer 0.1.weight";
    assert_ne!(default.reference.base.tensors.get(name), reference.base.tensors.get(name));
    let name = "z_encoder.mean_encoder.weight";
    assert_eq!(default.reference.base.tensors.get(name), reference.base.tensors.get(name));
    assert_eq!(default.reference.base.card.training["surgery"], "approximate: upstream's rules");
}
