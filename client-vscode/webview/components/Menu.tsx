import { useLayoutEffect, useRef, useState } from "preact/hooks";

import { Icon, IconButton } from "./Icon";

export interface MenuItem {
  label: string;
  run: () => void;
  /** One of several of which one is chosen, and whether it is this. */
  isChosen?: boolean;
}

interface Props {
  label: string;
  items: MenuItem[];
  icon?: string;
  onOpen?: () => void;
}

const ITEM = "[role^=menuitem]";

/** A button with a menu; arrows move in it, Escape closes it. */
export function Menu({ label, items, icon = "ellipsis", onOpen }: Props) {
  const [isOpen, open] = useState(false);
  const root = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => {
    if (!isOpen) return undefined;
    root.current?.querySelector<HTMLElement>(ITEM)?.focus();
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
    const all = [...(root.current?.querySelectorAll<HTMLElement>(ITEM) ?? [])];
    const index = all.indexOf(document.activeElement as HTMLElement);
    all[(index + step + all.length) % all.length]?.focus();
  };
  return (
    <span class="menu" ref={root} onKeyDown={move} onClick={(event) => event.stopPropagation()}>
      <IconButton
        icon={icon}
        label={label}
        expanded={isOpen}
        onClick={() => {
          if (!isOpen) onOpen?.();
          open(!isOpen);
        }}
      />
      {isOpen && (
        <span role="menu" aria-label={label}>
          {items.map((item) => (
            <button
              type="button"
              role={item.isChosen === undefined ? "menuitem" : "menuitemradio"}
              aria-checked={item.isChosen}
              key={item.label}
              onClick={() => {
                open(false);
                item.run();
              }}
            >
              {item.label}
              {item.isChosen && <Icon name="check" />}
            </button>
          ))}
        </span>
      )}
    </span>
  );
}
