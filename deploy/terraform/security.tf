# Who may talk to whom: by role, never by address. A flow is one line; each becomes a rule out of the one security
# group and a rule into the other, and what has no line does not happen.

locals {
  roles = {
    lb        = "Load balancer: the only door."
    edge      = "Envoy at the edge."
    app       = "Services, each with its Envoy."
    authz     = "Countersign."
    data      = "Redis: revocations, devices, sessions."
    endpoints = "Private endpoints of AWS APIs."
  }

  flows = {
    lb-edge         = { from = "lb", to = "edge", port = 8443, why = "requests, TLS again" }
    edge-app        = { from = "edge", to = "app", port = 8443, why = "requests that Countersign allowed" }
    app-app         = { from = "app", to = "app", port = 8443, why = "service to service, judged by the sidecar" }
    edge-authz      = { from = "edge", to = "authz", port = 9191, why = "questions of the edge" }
    app-authz       = { from = "app", to = "authz", port = 9191, why = "questions of the sidecars" }
    edge-signals    = { from = "edge", to = "authz", port = 9193, why = "security signals and public keys" }
    authz-data      = { from = "authz", to = "data", port = 6379, why = "revocations and devices, over TLS" }
    edge-endpoints  = { from = "edge", to = "endpoints", port = 443, why = "images, logs" }
    app-endpoints   = { from = "app", to = "endpoints", port = 443, why = "images, logs" }
    authz-endpoints = { from = "authz", to = "endpoints", port = 443, why = "images, logs, secrets" }
  }
}

resource "aws_security_group" "role" {
  #checkov:skip=CKV2_AWS_5:The roles are attached by those who make the machines; lb and endpoints are attached here.
  for_each               = local.roles
  name                   = "${var.name}-${each.key}"
  description            = each.value
  vpc_id                 = aws_vpc.this.id
  revoke_rules_on_delete = true
  tags                   = { Name = "${var.name}-${each.key}", role = each.key }
}

resource "aws_vpc_security_group_egress_rule" "flow" {
  for_each                     = local.flows
  security_group_id            = aws_security_group.role[each.value.from].id
  referenced_security_group_id = aws_security_group.role[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = each.value.why
}

resource "aws_vpc_security_group_ingress_rule" "flow" {
  for_each                     = local.flows
  security_group_id            = aws_security_group.role[each.value.to].id
  referenced_security_group_id = aws_security_group.role[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  description                  = each.value.why
}

# What runs from images fetches their layers from S3, by the gateway endpoint: AWS's own list of addresses, not one of ours.
resource "aws_vpc_security_group_egress_rule" "layers" {
  for_each          = toset(["edge", "app", "authz"])
  security_group_id = aws_security_group.role[each.key].id
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "layers of images, from S3"
}

# The one exception: the listener. Anybody may knock at 443; the firewall and Countersign decide what comes of it.
resource "aws_vpc_security_group_ingress_rule" "lb_from_anywhere" {
  security_group_id = aws_security_group.role["lb"].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "The public listener, HTTPS only."
}
