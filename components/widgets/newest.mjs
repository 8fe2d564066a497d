// Keeps to the newest of the values that Python sends. Each carries a number that rises, and answers
// of two events may overtake one another.

// Calls `draw` with each value but the late ones, whose field `number` is lower than that of one
// before. A late value is replaced by the newest, for those who read it from Gradio. Values without
// a number are never late.
export function watchNewest({ props, watch }, number, draw) {
  let newest = null;

  function arrived() {
    const { value } = props;
    if (newest && value?.[number] < newest[number]) {
      props.value = newest;
      return;
    }
    if (value?.[number] !== undefined) newest = value;
    draw(value);
  }

  watch('value', arrived);
  arrived();
}
