"""p.s from one mini-batch is biased; products across independent halves are not."""
