import { useLayoutEffect, useRef, useState } from "preact/hooks";

import { IconButton } from "./Icon";

export interface MenuItem {
  label: string;
  run: () => void;
}

/** A button with a menu; arrows move in it, Escape closes it. */
export function Menu({ label, items, icon = "ellipsis" }: { label: string; items: MenuItem[]; icon?: string }) {
  const [isOpen, open] = useState(false);
  const root = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => {
    if (!isOpen) return undefined;
    root.current?.querySelector<HTMLElement>("[role=menuitem]")?.focus();
    const close = (event: Event) => {
      if (!root.current?.contains(event.target as Node)) open(false);
    };
    document.addEventListener("pointerdown", close);
    return () => document.removeEventListener("pointerdown", close);
  }, [isOpen]);
  const move = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      open(false);
      root.current?.querySelector("button")?.focus();
    }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...(root.current?.querySelectorAll<HTMLElement>("[role=menuitem]") ?? [])];
    const index = all.indexOf(document.activeElement as HTMLElement);
    all[(index + step + all.length) % all.length]?.focus();
  };
  return (
    <span class="menu" ref={root} onKeyDown={move} onClick={(event) => event.stopPropagation()}>
      <IconButton icon={icon} label={label} expanded={isOpen} onClick={() => open(!isOpen)} />
      {isOpen && (
        <span role="menu" aria-label={label}>
          {items.map((item) => (
            <button
              type="button"
              role="menuitem"
              key={item.label}
              onClick={() => {
                open(false);
                item.run();
              }}
            >
              {item.label}
            </button>
          ))}
        </span>
      )}
    </span>
  );
}
