//! The memory of libtorch's tensors, for kernels that work on parts of a network that goes through autograd.

use tch::{Device, Kind, Tensor};

/// The numbers of a tensor; nothing where they are not single-precision numbers in one stretch of main memory.
pub(crate) fn numbers(tensor: &Tensor) -> Option<&[f32]> {
    is_plain(tensor).then(|| {
        // SAFETY: the tensor is dense, contiguous, in main memory and of 32-bit floats, so that `numel` of them lie at `data_ptr`. They
        // live as long as the tensor, which is borrowed; nothing in this crate writes to a tensor while another thread reads it.
        unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
    })
}

/// The same, to change them. Whoever calls this holds the only slice of the tensor's memory, of which other handles may exist.
pub(crate) fn numbers_mut(tensor: &mut Tensor) -> Option<&mut [f32]> {
    is_plain(tensor).then(|| {
        // SAFETY: as in `numbers`; the caller sees to it that no other slice of this memory is in use.
        unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), tensor.numel()) }
    })
}

/// Whether a tensor's memory is what kernels take. An empty one has none.
fn is_plain(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu
        && tensor.kind() == Kind::Float
        && !tensor.is_sparse()
        && tensor.is_contiguous()
        && tensor.numel() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_single_precision_numbers_are_lent() {
        let mut tensor = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]).view([2, 2]);
        assert_eq!(numbers(&tensor), Some(&[1.0, 2.0, 3.0, 4.0][..]));
        numbers_mut(&mut tensor).unwrap()[3] = 7.0;
        assert_eq!(tensor.double_value(&[1, 1]), 7.0);
        assert_eq!(numbers(&tensor.tr()), None, "its rows are not in one stretch");
        assert_eq!(numbers(&tensor.to_kind(Kind::Double)), None);
        assert_eq!(numbers(&Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))), None);
    }
}
