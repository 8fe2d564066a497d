// A link that fetches a file without leaving the page.

export function mount({ element, props, watch }) {
  const link = element.querySelector('a');

  function render() {
    const address = props.value?.address || '';
    link.hidden = !address;
    if (address) link.setAttribute('href', address);
    else link.removeAttribute('href');
  }

  watch('value', render);
  render();
}
