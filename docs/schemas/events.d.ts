// Orderwire's events. Made by `make contract`; properties may be added.

/** Where an order goes. */
export type Address = {
  /** Of who lives there */
  name: string;
  line1: string;
  line2?: string | null;
  postal_code?: string | null;
  city: string;
  region?: string | null;
  /** ISO 3166-1 alpha-2 */
  country: string;
};

/** Why the last method was refused; the code is the provider's. */
export type Decline = {
  code: string;
  message: string;
};

/** A discount as staff see it. `version` grows by one with each change and each use: keep what has the highest. */
export type Discount = {
  id: string;
  code: string;
  /** What is taken off, in basis points: 1000 are 10 per cent */
  rate: number;
  starts_at: string;
  ends_at: string | null;
  max_uses: number | null;
  /** Orders that have it; fewer when they are cancelled or expire */
  uses: number;
  version: number;
  created_at: string;
  updated_at: string;
};

/** One product in an order, as it was when the order was placed. */
export type Line = {
  product_id: string;
  sku: string;
  name: string;
  /** Minor units of the order's currency */
  unit_price: number;
  quantity: number;
  /** In basis points: 1900 are 19 per cent */
  tax_rate: number;
  /** This line's share of the order's */
  discount: number;
  /** After the discount */
  total: number;
};

/** An order as everybody sees it. `version` grows by one with each change: keep what has the highest. */
export type Order = {
  id: string;
  /** What people read out on the phone */
  number: number;
  customer_id: string;
  status: Status;
  version: number;
  /** ISO 4217 */
  currency: string;
  items: Array<Line>;
  /** Of all lines, before the discount */
  subtotal: number;
  discount_code: string | null;
  /** Minor units of the order's currency */
  discount: number;
  /** By rate */
  taxes: Array<Tax>;
  /** In the prices; or on top of them */
  tax_included: boolean;
  /** What is to be paid */
  total: number;
  /** Given back of what was paid */
  refunded: number;
  address: Address | null;
  note: string | null;
  created_at: string;
  updated_at: string;
  /** When it expires, unless it is paid before */
  expires_at: string | null;
};

/** What a dashboard shows. Spans are in UTC, oldest first; one without an order is left out. `version` grows: keep
what has the highest. */
export type OrderStats = {
  version: number;
  at: string;
  /** Of all orders there are */
  totals: Array<Tally>;
  /** Of the last hour */
  minutes: Array<Point>;
  /** Of the last day */
  hours: Array<Point>;
  /** Of the last thirty days */
  days: Array<Point>;
};

/** What is collected for an order. `version` grows by one with each change: keep what has the highest. */
export type Payment = {
  id: string;
  order_id: string;
  provider: string;
  status: PaymentStatus;
  version: number;
  /** Minor units of the order's currency */
  amount: number;
  /** ISO 4217 */
  currency: string;
  decline: Decline | null;
  refunds: Array<Refund>;
  created_at: string;
  updated_at: string;
};

export type PaymentStatus = "requires_payment_method" | "requires_action" | "processing" | "succeeded" | "cancelled";

/** Orders that were placed in the span that begins then, and what is paid for of them. */
export type Point = {
  begins_at: string;
  /** ISO 4217 */
  currency: string;
  orders: number;
  /** Minor units of the order's currency */
  revenue: number;
};

/** A product as everybody sees it. `version` grows by one with each change and whenever orders take or give back
pieces: keep what has the highest. */
export type Product = {
  id: string;
  sku: string;
  name: string;
  /** Of one piece, in minor units of the currency */
  price: number;
  /** ISO 4217 */
  currency: string;
  /** Pieces that can still be ordered */
  stock: number;
  /** In basis points: 1900 are 19 per cent */
  tax_rate: number;
  /** Whether it can be ordered */
  for_sale: boolean;
  version: number;
};

/** Products, each as it is now. */
export type Products = {
  items: Array<Product>;
};

/** What is given back of a payment. */
export type Refund = {
  id: string;
  /** Minor units of the payment's currency */
  amount: number;
  reason: RefundReason;
  status: RefundStatus;
  created_at: string;
};

export type RefundReason = "requested" | "order_cancelled" | "paid_too_late";

export type RefundStatus = "pending" | "succeeded" | "failed";

export type Status = "draft" | "placed" | "payment_failed" | "paid" | "packed" | "shipped" | "delivered" | "cancelled" | "expired" | "returned" | "refunded";

/** Orders that are of this status now, and what they come to. */
export type StatusCount = {
  status: Status;
  orders: number;
  /** Minor units of the order's currency */
  total: number;
};

/** Of all orders of a currency; `revenue` is of those that are paid for. */
export type Tally = {
  /** ISO 4217 */
  currency: string;
  orders: number;
  /** Minor units of the order's currency */
  revenue: number;
  by_status: Array<StatusCount>;
};

/** Of all lines that are taxed at this rate. */
export type Tax = {
  /** In basis points: 1900 are 19 per cent */
  rate: number;
  /** Without the tax */
  net: number;
  /** Minor units of the order's currency */
  amount: number;
};

/** An event on the exchange */
export type OrderEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "order.drafted" | "order.created" | "order.paid" | "order.packed" | "order.shipped" | "order.delivered" | "order.cancelled" | "order.expired" | "order.payment_failed" | "order.returned" | "order.refunded" | "order.refund_failed" | "order.edited";
  /** The id of what it happened to; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Order;
  /** The account that it concerns */
  recipient?: string;
  /** W3C trace context of what set the event off */
  traceparent?: string;
};

/** An event as live clients get it */
export type OrderPublication = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "order.drafted" | "order.created" | "order.paid" | "order.packed" | "order.shipped" | "order.delivered" | "order.cancelled" | "order.expired" | "order.payment_failed" | "order.returned" | "order.refunded" | "order.refund_failed" | "order.edited";
  /** The id of what it happened to; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Order;
};

/** An event on the exchange */
export type PaymentEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "payment.changed";
  /** The id of the order that it is of; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Payment;
  /** The account that it concerns */
  recipient?: string;
  /** W3C trace context of what set the event off */
  traceparent?: string;
};

/** An event as live clients get it */
export type PaymentPublication = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "payment.changed";
  /** The id of the order that it is of; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Payment;
};

/** An event on the exchange */
export type OrderStatsEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "orders.counted";
  subject: "orders";
  /** When it happened */
  time: string;
  data: OrderStats;
  /** The account that it concerns */
  recipient?: string;
  /** W3C trace context of what set the event off */
  traceparent?: string;
};

/** An event as live clients get it */
export type OrderStatsPublication = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "orders.counted";
  subject: "orders";
  /** When it happened */
  time: string;
  data: OrderStats;
};

/** An event on the exchange */
export type ProductEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "product.changed" | "stock.low";
  /** The id of the product; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Product;
  /** The account that it concerns */
  recipient?: string;
  /** W3C trace context of what set the event off */
  traceparent?: string;
};

/** An event as live clients get it */
export type ProductPublication = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "product.changed" | "stock.low";
  /** The id of the product; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Product;
};

/** An event on the exchange */
export type ProductsEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "stock.changed";
  subject: "products";
  /** When it happened */
  time: string;
  data: Products;
  /** The account that it concerns */
  recipient?: string;
  /** W3C trace context of what set the event off */
  traceparent?: string;
};

/** An event as live clients get it */
export type ProductsPublication = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "stock.changed";
  subject: "products";
  /** When it happened */
  time: string;
  data: Products;
};

/** An event on the exchange */
export type DiscountEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "discount.changed";
  /** The id of the discount; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Discount;
  /** The account that it concerns */
  recipient?: string;
  /** W3C trace context of what set the event off */
  traceparent?: string;
};

/** An event as live clients get it */
export type DiscountPublication = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "discount.changed";
  /** The id of the discount; events of one subject are in order */
  subject: string;
  /** When it happened */
  time: string;
  data: Discount;
};

/** Another service's event on the exchange */
export type ServiceEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  /** Who emitted it; at most 512 bytes */
  source: string;
  /** What happened; at most 255 bytes */
  type: string;
  /** What it happened to; events of one subject are in order; at most 512 bytes */
  subject?: string;
  /** When it happened; without it, when it arrived */
  time?: string;
  /** Any JSON value */
  data?: unknown;
  /** Who shall hear it; needed unless the type has a configured channel; at most 255 bytes */
  channel?: string;
  /** W3C trace context of what set the event off */
  traceparent?: string;
  datacontenttype?: string;
  data_base64?: never;
};

/** Another service's event as live clients get it */
export type ServicePublication = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  /** Who emitted it; at most 512 bytes */
  source: string;
  /** What happened; at most 255 bytes */
  type: string;
  /** What it happened to; events of one subject are in order; at most 512 bytes */
  subject?: string;
  /** When it happened */
  time: string;
  /** Any JSON value */
  data: unknown;
};

/** A client was welcomed */
export type ClientConnected = {
  client: string;
  /** Empty for an anonymous client */
  user: string;
  app_name: string;
  app_version: string;
  transport: string;
  protocol: "json" | "protobuf";
};

/** A client is gone */
export type ClientDisconnected = {
  client: string;
  /** Empty for an anonymous client */
  user: string;
  app_name: string;
  app_version: string;
  /** The close code; null when the client went by itself */
  code: number | null;
};

/** A channel has its first client, or lost its last */
export type ChannelChange = {
  channel: string;
};

/** What becomes of clients and channels, where [events] life_cycle wants it */
export type LifeCycleEvent = {
  specversion: "1.0";
  /** With source it identifies the event: drop what you have had; at most 255 bytes */
  id: string;
  source: "/orderwire";
  type: "channel.occupied" | "channel.vacated" | "client.connected" | "client.disconnected";
  /** The client's id, or the channel */
  subject: string;
  /** When it happened */
  time: string;
  data: ClientConnected | ClientDisconnected | ChannelChange;
};
