// Lists suggested plans. Every word goes onto the page as text.
const list = element.querySelector('.suggestions ol');

function make(tag, words, name = '') {
  const node = document.createElement(tag);
  node.textContent = words;
  node.className = name;
  return node;
}

function box(...children) {
  const node = document.createElement('div');
  node.append(...children);
  return node;
}

function render() {
  const rows = props.value?.rows || [];
  list.replaceChildren(...rows.map((row) => {
    const item = make('li', '', row.control ? 'control' : '');
    const apply = make('button', 'Apply');
    apply.type = 'button';
    apply.setAttribute('aria-label', `Apply ${row.plan}`);
    apply.addEventListener('click', () => trigger('select', { plan: row.plan }));
    item.append(
      box(make('b', row.method), make('small', row.size)),
      box(make('code', row.plan), make('small', row.words)),
      box(make('small', 'expected'), make('span', row.expected || '–')),
      box(make('small', 'measured perplexity'), make('span', row.measured || '…', 'measured'),
        make('small', row.span)),
      apply,
    );
    return item;
  }));
}

watch('value', render);
render();
