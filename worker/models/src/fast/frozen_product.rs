//! The product of cells with a weight that does not train, over the values that are there: the first layer of a network that goes through
//! autograd, where that is frozen or only evaluated.

use rayon::prelude::*;
use tch::Tensor;

use super::block::ROWS;
use crate::kernels::{
    Buffer, Level,
    buffer::PANEL,
    memory::{numbers, numbers_mut},
    padded, sparse,
};

/// A weight, arranged for the kernels once.
#[derive(Debug)]
pub(crate) struct FrozenProduct {
    /// 32 outputs each: a row of them for each input.
    panels: Vec<Buffer>,
    n_in: usize,
    n_out: usize,
}

impl FrozenProduct {
    /// Of the first `n_in` columns of a weight, `[n_out, n_in or more]`. Nothing where its memory is not what kernels take.
    pub(crate) fn new(weight: &Tensor, n_in: usize) -> Option<Self> {
        let (n_out, n_columns) = (weight.size()[0] as usize, weight.size()[1] as usize);
        let values = numbers(weight)?;
        let panel = |p: usize| {
            let mut panel = Buffer::zeros(n_in * PANEL);
            for output in p * PANEL..n_out.min((p + 1) * PANEL) {
                let row = &values[output * n_columns..][..n_in];
                row.iter().enumerate().for_each(|(input, &value)| panel[input * PANEL + output % PANEL] = value);
            }
            panel
        };
        Some(Self { panels: (0..padded(n_out) / PANEL).map(panel).collect(), n_in, n_out })
    }

    /// `x Wᵀ`, `[n, n_out]`, of `x`, `[n, n_in]`.
    pub(crate) fn of(&self, x: &Tensor) -> Option<Tensor> {
        let (level, width, x) = (Level::best(), padded(self.n_out), x.contiguous());
        let panels: Vec<&[f32]> = self.panels.iter().map(|panel| &**panel).collect();
        let mut product = Tensor::zeros([x.size()[0], width as i64], (x.kind(), x.device()));
        let rows = numbers(&x)?.par_chunks(ROWS * self.n_in);
        numbers_mut(&mut product)?.par_chunks_mut(ROWS * width).zip(rows).for_each(|(product, x)| {
            let (mut inputs, mut values) = (Vec::with_capacity(self.n_in), Vec::with_capacity(self.n_in));
            for (product, x) in product.chunks_exact_mut(width).zip(x.chunks_exact(self.n_in)) {
                inputs.clear();
                values.clear();
                for (input, &value) in (0..).zip(x).filter(|(_, value)| **value != 0.0) {
                    inputs.push(input);
                    values.push(value);
                }
                sparse::add_row(level, &inputs, &values, &panels, product);
            }
        });
        Some(product.narrow(1, 0, self.n_out as i64))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::nn::{Noise, SeededNoise};

    #[test]
    fn it_is_the_product_with_the_first_columns() {
        let mut noise = SeededNoise::new([1; 32]);
        let mut drawn = |size| noise.normal("values", size, Device::Cpu);
        let (weight, x) = (drawn(&[40, 23]), drawn(&[70, 20]).relu());
        let expected = x.matmul(&weight.narrow(1, 0, 20).tr());
        let found = FrozenProduct::new(&weight, 20).unwrap().of(&x).unwrap();
        assert_eq!(found.size(), [70, 40]);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
        assert!(FrozenProduct::new(&weight.to_kind(Kind::Double), 20).is_none());
    }
}
