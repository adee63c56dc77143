variable "name" {
  description = "Prefix of everything that is made here."
  type        = string
  default     = "countersign"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "Lower case letters, digits and dashes, at most 21 of them."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC, a /16."
  type        = string
  default     = "10.40.0.0/16"
  validation {
    condition     = can(cidrnetmask(var.cidr)) && endswith(var.cidr, "/16")
    error_message = "An IPv4 network of the form a.b.0.0/16."
  }
}

variable "zones" {
  description = "Availability zones by name. Three: replicas of Countersign want three. Not asked of AWS, so that a zone it adds moves nothing."
  type        = list(string)
  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 4
    error_message = "2 to 4 (a load balancer needs two)."
  }
}

variable "hosts" {
  description = "Host names that the firewall lets in, exactly. Anything else is blocked."
  type        = list(string)
  validation {
    condition     = length(var.hosts) > 0
    error_message = "At least one: an empty list would let nothing in."
  }
}

variable "certificate_arn" {
  description = "ACM certificate of these hosts."
  type        = string
}

variable "rate_limit" {
  description = "Requests of one address in five minutes, before the firewall blocks it for a while. A bound against floods; quotas per person are Countersign's."
  type        = number
  default     = 10000
}

variable "log_days" {
  description = "Days that flow and firewall logs are kept."
  type        = number
  default     = 365
}
