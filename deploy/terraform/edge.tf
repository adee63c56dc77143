# The door: a load balancer that passes on only well-formed requests, over TLS on both sides.

resource "aws_lb" "this" {
  #checkov:skip=CKV2_AWS_76:The Log4j rules are on (firewall.tf). The other group it asks for blocks every VPN and host; here that is a risk to weigh, and Countersign weighs it.
  name               = var.name
  load_balancer_type = "application"
  internal           = false
  security_groups    = [aws_security_group.role["lb"].id]
  subnets            = [for key, subnet in aws_subnet.this : subnet.id if local.subnets[key].segment == "lb"]

  # A header with an invalid name never reaches Envoy, and requests that two parsers might read differently are refused.
  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  preserve_host_header       = true
  # The address it saw is appended; what the client wrote before it is counted away by `trusted_hops`.
  xff_header_processing_mode = "append"
  enable_xff_client_port     = false
  # The firewall does not answer: refuse.
  enable_waf_fail_open       = false
  enable_deletion_protection = true
  idle_timeout               = 60

  access_logs {
    bucket  = aws_s3_bucket.logs.id
    prefix  = "lb"
    enabled = true
  }

  depends_on = [aws_s3_bucket_policy.logs]
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
  certificate_arn   = var.certificate_arn

  # Hosts that no rule names lead nowhere.
  default_action {
    type = "fixed-response"
    fixed_response {
      content_type = "text/plain"
      status_code  = "404"
    }
  }
}

resource "aws_lb_listener_rule" "hosts" {
  listener_arn = aws_lb_listener.https.arn
  priority     = 10

  action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.edge.arn
  }

  condition {
    host_header {
      values = var.hosts
    }
  }
}

resource "aws_lb_target_group" "edge" {
  name                 = "${var.name}-edge"
  vpc_id               = aws_vpc.this.id
  target_type          = "ip"
  protocol             = "HTTPS"
  port                 = 8443
  deregistration_delay = 30

  # What answers here must be in the edge's Envoy: a listener with TLS that asks for no client certificate (those end at the load
  # balancer), and the route that envoy/per-route.yaml shows for a load balancer's probes.
  health_check {
    protocol            = "HTTPS"
    path                = "/edge-alive"
    matcher             = "200"
    interval            = 10
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

# Access logs of the load balancer.
resource "aws_s3_bucket" "logs" {
  #checkov:skip=CKV_AWS_145:Load balancers can write access logs only to buckets with the S3-managed key.
  #checkov:skip=CKV_AWS_18:This is the log bucket; a log of the log would need a third one.
  #checkov:skip=CKV_AWS_144:Logs of one region; copy them to the archive account by the rules of your house.
  #checkov:skip=CKV2_AWS_62:Nobody acts on single log files.
  bucket_prefix = "${var.name}-logs-"
}

resource "aws_s3_bucket_public_access_block" "logs" {
  bucket                  = aws_s3_bucket.logs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "logs" {
  bucket = aws_s3_bucket.logs.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id
  rule {
    id     = "expire"
    status = "Enabled"
    filter {}
    expiration {
      days = var.log_days
    }
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }
}

resource "aws_s3_bucket_policy" "logs" {
  bucket = aws_s3_bucket.logs.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "LoadBalancerWrites"
        Effect    = "Allow"
        Principal = { Service = "logdelivery.elasticloadbalancing.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.logs.arn}/lb/AWSLogs/${data.aws_caller_identity.current.account_id}/*"
        Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
      },
      {
        Sid       = "OnlyOverTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.logs.arn, "${aws_s3_bucket.logs.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}
