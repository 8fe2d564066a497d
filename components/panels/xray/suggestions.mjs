// Lists suggested plans. Every word goes onto the page as text.
import { make } from '../../widgets/dom.mjs';
import { followPlan } from '../../widgets/page_plan.mjs';

function box(...children) {
  const node = make('div');
  node.append(...children);
  return node;
}

export function mount({ element, trigger, props, watch }) {
  const list = element.querySelector('.suggestions ol');
  let open = ''; // the base that the page shows

  function item(row) {
    const node = make('li', row.control ? 'control' : '');
    const apply = make('button', 'apply', 'Apply');
    apply.type = 'button';
    apply.setAttribute('aria-label', `Apply ${row.plan}`);
    apply.addEventListener('click', () => trigger('select', { plan: row.plan, spec: open }));
    node.append(
      box(make('b', '', row.method), make('small', '', row.size)),
      box(make('code', '', row.plan), make('small', '', row.words)),
      box(make('small', '', 'predicted'), make('span', '', row.expected || '–')),
      box(make('small', '', 'measured perplexity'), make('span', 'measured', row.measured || '…'),
        make('small', '', row.span)),
      box(make('small', '', 'cost on other text'), make('span', 'judged', row.cost || '–'),
        make('small', '', row.cost_span), make('small', 'verdict', row.verdict)),
      apply,
    );
    return node;
  }

  // Plans of another base are none for this one.
  function render() {
    const { rows = [], spec } = props.value || {};
    list.replaceChildren(...(spec === open ? rows : []).map(item));
  }

  followPlan(element, (page) => {
    open = page?.spec || '';
    render();
  });

  watch('value', render);
  render();
}
