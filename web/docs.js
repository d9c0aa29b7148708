/** The page at /docs: Swagger UI over this server's own OpenAPI document. It asks nobody else. */

globalThis.SwaggerUIBundle({
  dom_id: "#docs",
  url: "/openapi.json",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
