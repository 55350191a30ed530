from mandeldask.kernels.masked import make
