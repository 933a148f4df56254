//! The first layer of an encoder, over the counts that are there.

use super::{
    buffer::PANEL,
    lanes::{LANES, Lanes, kernel},
    math::ln_1p,
};

kernel! {
    /// `ln(1 + x)` of each value.
    pub(crate) fn ln_1p_of<V>(values: &[f32], out: &mut [f32]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        let (outs, rest_out) = out.as_chunks_mut::<LANES>();
        for (values, out) in chunks.iter().zip(outs) {
            ln_1p(V::load(values)).0.store(out);
        }
        let mut lanes = [0.0; LANES];
        lanes[..rest.len()].copy_from_slice(rest);
        ln_1p(V::load(&lanes)).0.store(&mut lanes);
        rest_out[..rest.len()].copy_from_slice(&lanes[..rest.len()]);
    }
}

kernel! {
    /// Adds `Σ value · row(gene)` to one row of 32 columns per panel.
    pub(crate) fn add_row<V>(genes: &[u32], values: &[f32], panels: &[&[f32]], row: &mut [f32]) {
        let (fours, rest) = panels.as_chunks::<4>();
        let (wide, narrow) = row.split_at_mut(fours.len() * 4 * PANEL);
        for (panels, row) in fours.iter().zip(wide.chunks_exact_mut(4 * PANEL)) {
            add_to::<V, 4>(genes, values, panels, row);
        }
        for (panel, row) in rest.iter().zip(narrow.chunks_exact_mut(PANEL)) {
            add_to::<V, 1>(genes, values, &[panel], row);
        }
    }
}

/// A few panels at once: enough sums that none waits for itself.
#[inline(always)]
fn add_to<V: Lanes, const N: usize>(genes: &[u32], values: &[f32], panels: &[&[f32]; N], row: &mut [f32]) {
    let (lanes, _) = row.as_chunks_mut::<LANES>();
    let mut sums = [[V::splat(0.0); 2]; N];
    for (sums, lanes) in sums.iter_mut().zip(lanes.chunks_exact(2)) {
        *sums = [V::load(&lanes[0]), V::load(&lanes[1])];
    }
    for (&gene, &value) in genes.iter().zip(values) {
        let value = V::splat(value);
        for (sums, panel) in sums.iter_mut().zip(panels) {
            let (weights, _) = panel[gene as usize * PANEL..][..PANEL].as_chunks::<LANES>();
            sums[0] = value.mul_add(V::load(&weights[0]), sums[0]);
            sums[1] = value.mul_add(V::load(&weights[1]), sums[1]);
        }
    }
    for (sums, lanes) in sums.iter().zip(lanes.chunks_exact_mut(2)) {
        sums[0].store(&mut lanes[0]);
        sums[1].store(&mut lanes[1]);
    }
}

kernel! {
    /// Adds `value · delta` to the panel's row of each gene: the weight's gradient, 32 columns of it.
    pub(crate) fn add_outer<V>(genes: &[u32], values: &[f32], delta: &[f32], panel: &mut [f32]) {
        let (delta, _) = delta[..PANEL].as_chunks::<LANES>();
        let delta = [V::load(&delta[0]), V::load(&delta[1])];
        for (&gene, &value) in genes.iter().zip(values) {
            let value = V::splat(value);
            let (sums, _) = panel[gene as usize * PANEL..][..PANEL].as_chunks_mut::<LANES>();
            for (sum, delta) in sums.iter_mut().zip(delta) {
                value.mul_add(delta, V::load(sum)).store(sum);
            }
        }
    }
}
